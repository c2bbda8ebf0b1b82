"""Results as a picture: a row for each editor, a panel for each metric shown, means with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

from editors.core.printable import CELL, printable
from evaluators.report.colours import colour_of
from evaluators.report.samples import UNEDITED, Setting, name_key
from evaluators.report.tables import Summary, in_percent
from evaluators.report.views import Headings, View, headings, in_order

# Sizes in pixels, of a panel the room that its 100 % take.
MARGIN, LETTER, PANEL, NUMBER, GAP, ROW, HEAD, FOOT = 20, 8, 108, 46, 22, 26, 66, 32
TICKS = (0, 50, 100)
INK, SOFT, GRID = "#1f2328", "#656d76", "#eaeef2"
STYLE = (f"text{{font:13px ui-sans-serif,system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:{INK}}}"
         f".soft{{fill:{SOFT};font-size:11px}}.head{{font-weight:600}}.number{{fill:{SOFT};font-size:11.5px}}")


class Drawing(NamedTuple):
    """Elements of an SVG, and the pixels they take."""

    width: int
    height: int
    parts: list[str]


def to_svg(rows: Sequence[Summary], view: View = "main") -> str:
    """An SVG of the main metrics that are shares, or of the paper's, one block below the other for each model, data
    set, protocol and number of edits."""
    drawing = dots(rows, view)
    return document(drawing.width, drawing.height + MARGIN // 2, drawing.parts)


def dots(rows: Sequence[Summary], view: View, top: int = 0) -> Drawing:
    """The blocks of `to_svg`, from this height on."""
    called = headings([row for row in rows if in_percent(row.metric)], view)
    shown = [row for row in rows if (row.dataset, row.metric) in called]
    names = MARGIN + LETTER * (2 + max((len(printable(row.editor, CELL)) for row in shown), default=0))
    width = names + len(in_order(called)) * (PANEL + NUMBER + GAP) - GAP + MARGIN
    parts, start = list[str](), top
    blocks = groupby(sorted(shown, key=lambda row: row.sort_key[:4]), key=lambda row: Setting(*row.sort_key[:4]))
    for setting, found in blocks:
        block = list(found)
        editors = sorted({row.editor for row in block}, key=name_key)
        parts += _block(setting, block, editors, called, names, top)
        top += HEAD + ROW * len(editors) + FOOT
    return Drawing(width if parts else 0, top - start, parts)


def document(width: int, height: int, parts: Sequence[str], style: str = STYLE) -> str:
    """An SVG of these parts on white."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img"><style>{style}</style>\n'
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n")


def _block(setting: Setting, rows: Sequence[Summary], editors: Sequence[str], called: Headings, names: int,
           top: int) -> Iterator[str]:
    """The panels of one setting, side by side below its title; the first begins at `names`."""
    edits = f", {setting.edits} edits" if setting.edits > 1 else ""
    cases = max(row.n for row in rows)
    title = f"{setting.model}, {setting.dataset}: {setting.protocol}{edits}, {cases} cases"
    yield text_at(MARGIN, top + 22, f"{title}; % of cases right, mean and 95 % interval", "soft")
    first, last = top + HEAD, top + HEAD + ROW * len(editors)
    for line, editor in enumerate(editors):
        kind = "soft" if editor == UNEDITED else ""
        yield text_at(MARGIN, first + ROW * line + ROW / 2 + 4, printable(editor, CELL), kind)
    for number, panel in enumerate(in_order(called)):
        left = names + number * (PANEL + NUMBER + GAP)
        yield text_at(left, top + 50, panel.removesuffix(".exact"), "head")
        for tick in TICKS:
            x = left + PANEL * tick / 100
            yield f'<line x1="{x:g}" y1="{first}" x2="{x:g}" y2="{last}" stroke="{GRID}"/>'
            yield text_at(x, last + 16, str(tick), "soft", "middle")
        found = {row.editor: row for row in rows if called[row.dataset, row.metric] == panel}
        for line, editor in enumerate(editors):
            if editor in found:
                yield from _dot(found[editor], left, first + ROW * line + ROW / 2)


def _dot(row: Summary, left: int, y: float) -> Iterator[str]:
    """A mean as a dot on its interval, and as a number beside the panel."""
    low, mean, high = (left + PANEL * min(max(value, 0.0), 1.0) for value in (row.low, row.mean, row.high))
    colour = colour_of(row.editor)
    yield f'<line x1="{left}" y1="{y:g}" x2="{left + PANEL}" y2="{y:g}" stroke="{GRID}" stroke-dasharray="1 3"/>'
    yield (f'<line x1="{low:.1f}" y1="{y:g}" x2="{high:.1f}" y2="{y:g}" stroke="{colour}" stroke-width="6" '
           'stroke-opacity="0.4" stroke-linecap="round"/>')
    yield f'<circle cx="{mean:.1f}" cy="{y:g}" r="4.5" fill="{colour}"/>'
    yield text_at(left + PANEL + NUMBER, y + 4, f"{100 * row.mean:.1f}", "number", "end")


def text_at(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    """A text that says what it holds, whatever that is."""
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{style}>{escape(printable(text, 4 * CELL))}</text>'
