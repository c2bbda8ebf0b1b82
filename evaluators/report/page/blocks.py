"""What a page is made of: sections with tables, figures and lines of text; the template knows how each looks."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from editors.core.printable import CELL, printable
from evaluators.report.figure import Drawing
from evaluators.report.page.charts import picture, swatch
from evaluators.report.tables import Summary, in_percent, show_value
from evaluators.report.views import PAPER

LONG = 40  # characters from which on a cell is a sentence
WAYS = {"token": "share of tokens (as the paper)", "exact": "whole answers", "generation": "free generation"}
#: What tables of scores have as columns, and the metrics (less the way an answer is taken) they are of: the first that
#: a data set has.
ASPECTS = {heading: tuple(metric.removesuffix(".token") for metric in metrics) for heading, metrics in PAPER.items()}


@dataclass(frozen=True)
class Cell:
    """A cell: its text, smaller lines below it, and the numbers it stands for, which a program can read. `shade` is its
    colour in a heat map, from 0 to 10, `mark` an SVG before it, and `paper` what the paper prints there, which is among
    `more`."""

    text: str
    more: Sequence[str] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    best: bool = False
    shade: int | None = None
    mark: str = ""
    paper: str = ""

    @property
    def look(self) -> str:
        """The classes that its style goes by."""
        looks = {"best": self.best, "value": self.data, "marked": self.mark, "long": len(self.text) > LONG,
                 f"heat h{self.shade}": self.shade is not None}
        return " ".join(name for name, there in looks.items() if there)


@dataclass(frozen=True)
class Grid:
    """A table; the first `names` cells of a row say what it is about. With a `way` it is shown only where answers are
    taken in this way, which a reader chooses."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1
    note: str = ""
    way: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Panel:
    """One drawing, and what it shows in words."""

    drawing: Drawing
    words: str

    @property
    def svg(self) -> str:
        return picture(self.drawing)


@dataclass(frozen=True)
class Figure:
    """Drawings side by side under one legend of names and marks."""

    caption: str
    panels: Sequence[Panel]
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""
    way: str = ""


@dataclass(frozen=True)
class Note:
    """A line of text, such as what is missing; `command` would fill it."""

    text: str
    command: str = ""
    way: str = ""


@dataclass(frozen=True)
class Picture:
    """An SVG that brings its own colours, and what it shows in words."""

    svg: str
    words: str

    @property
    def url(self) -> str:
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"


@dataclass(frozen=True)
class Listing:
    """Lines of a file, folded under a caption."""

    caption: str
    text: str


Block = Grid | Figure | Note | Picture | Listing


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own, which the page's list calls by a `short` name; `kind` names what a
    script fills in."""

    id: str
    title: str
    short: str
    lead: str = ""
    blocks: Sequence[Block] = ()
    kind: str = ""


def name(text: object) -> Cell:
    return Cell(printable(str(text), CELL))


def of_editor(editor: str) -> Cell:
    """An editor's name behind its mark."""
    return Cell(printable(editor, CELL), mark=swatch(editor))


NOTHING = Cell("-")


def estimate(row: Summary | None, paper: str = "", difference: str = "", *, best: bool = False) -> Cell:
    """A mean with half its interval, the number of cases, and what else is known of it."""
    if row is None:
        return Cell("-", [f"paper {paper}"] if paper else [])
    half = (row.high - row.low) / 2
    more = [f"n {row.n}" + (f" · paper {paper}" if paper else ""), *([difference] if difference else [])]
    return Cell(show_value(row.metric, row.mean, half, "-"), more,
                numbers(row), best, paper=paper)


def numbers(row: Summary) -> dict[str, str]:
    return {"metric": row.metric, "mean": repr(row.mean), "low": repr(row.low), "high": repr(row.high),
            "n": str(row.n)}


def short(value: float, metric: str = "") -> str:
    """A number with three significant digits; of a share, in percent."""
    if not math.isfinite(value):
        return str(value)
    return f"{100 * value:.1f}" if metric and in_percent(metric) else f"{value:.3g}"
