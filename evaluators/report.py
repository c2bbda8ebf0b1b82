"""Sums rows of the store up: means with confidence intervals, as a table for people or JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import pyarrow as pa
from rich import box
from rich.table import Table
from rich.text import Text

from evaluators.intervals import bootstrap
from evaluators.metrics import METRICS

MAIN = ("reliability.exact", "generality.exact", "locality.exact", "locality.attributes.exact", "portability.exact")
SETTING = ("model", "dataset", "protocol", "edits")
UNEDITED = "identity"
PROTOCOLS = ("single", "batch", "sequential")  # the order of tables


@dataclass(frozen=True)
class Summary:
    """The mean of one metric over n cases, with the bounds of its 95 % confidence interval, clustered by subject."""

    editor: str
    model: str
    dataset: str
    protocol: str
    edits: int
    metric: str
    mean: float
    low: float
    high: float
    n: int


def summarise(table: pa.Table) -> list[Summary]:
    """Summaries of rows with columns editor, model, dataset, protocol, edits, metric, value and subject.

    Their order, and every number, is independent of the order of the rows.
    """
    groups: dict[tuple[str, str, str, str, int, str], tuple[list[float], list[str]]] = {}
    columns = ("editor", "model", "dataset", "protocol", "edits", "metric", "value", "subject")
    for *group, value, subject in zip(*(table[name].to_pylist() for name in columns), strict=True):
        values, subjects = groups.setdefault(tuple(group), ([], []))
        values.append(value)
        subjects.append(subject)
    summaries = [Summary(*group, *bootstrap(values, subjects)) for group, (values, subjects) in groups.items()]
    return sorted(summaries, key=lambda row: (row.model, row.dataset, row.protocol, row.edits, _place(row.editor),
                                              _place(row.metric)))


def _place(name: str) -> tuple[bool, int, str]:
    """Orders editors (the unedited model first) and metrics (as `METRICS` has them)."""
    return name != UNEDITED, METRICS.index(name) if name in METRICS else len(METRICS), name


def to_json_lines(summaries: Sequence[Summary]) -> str:
    """One JSON object a line, with the fields of `Summary`; numbers that are not finite are null."""
    def finite(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return "".join(json.dumps({name: finite(value) for name, value in asdict(row).items()}, ensure_ascii=False) + "\n"
                   for row in summaries)


def to_markdown(summaries: Sequence[Summary], *, all_metrics: bool = False) -> str:
    """Markdown tables in percent, one for each protocol: a row for each editor (and data set, number of edits ...),
    columns for the `MAIN` metrics.

    `all_metrics` has a row for each metric and a column for each editor instead.
    """
    return "\n".join(_markdown(grid) for grid in _grids(summaries, all_metrics))


def _markdown(grid: _Grid) -> str:
    lines = [grid.head, ["---"] * len(grid.head), *grid.body]
    rows = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    return f"{grid.title}\n\n{''.join(rows)}"


def to_rich_tables(summaries: Sequence[Summary], *, all_metrics: bool = False) -> list[Table]:
    """The tables of `to_markdown` for a terminal."""
    return [_rich(grid) for grid in _grids(summaries, all_metrics)]


def _rich(grid: _Grid) -> Table:
    table = Table(title=Text(grid.title), box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, name in enumerate(grid.head):
        header = name if number < grid.names else name.replace(".", "\n")
        table.add_column(Text(header), justify="left" if number < grid.names else "right", overflow="fold")
    for line in grid.body:
        table.add_row(*map(Text, line))
    return table


class _Grid(NamedTuple):
    """A table as text; the first `names` columns say what a row is about."""

    title: str
    head: list[str]
    body: list[list[str]]
    names: int


def _grids(summaries: Sequence[Summary], all_metrics: bool) -> list[_Grid]:
    """One for each protocol."""
    protocols = sorted({row.protocol for row in summaries}, key=_protocol_place)
    return [_grid([row for row in summaries if row.protocol == protocol], all_metrics) for protocol in protocols]


def _protocol_place(name: str) -> tuple[int, str]:
    return PROTOCOLS.index(name) if name in PROTOCOLS else len(PROTOCOLS), name


def _grid(summaries: Sequence[Summary], all_metrics: bool) -> _Grid:
    """What all summaries share goes into the title; what varies gets a column. An editor's (or metric's) numbers of
    edits follow one another."""
    down, across = ("metric", "editor") if all_metrics else ("editor", "metric")
    shown = sorted((row for row in summaries if all_metrics or row.metric in MAIN),
                   key=lambda row: (row.model, row.dataset, _place(getattr(row, down)), row.edits))
    values = {field: list(dict.fromkeys(getattr(row, field) for row in shown)) for field in SETTING}
    varying = [field for field in SETTING if len(values[field]) > 1]
    lines: dict[tuple[str, ...], dict[str, Summary]] = {}
    for row in shown:
        key = tuple(str(getattr(row, field)) for field in (down, *varying))
        lines.setdefault(key, {})[getattr(row, across)] = row
    columns = sorted({getattr(row, across) for row in shown}, key=_place)
    body = [[*key, str(max(cell.n for cell in cells.values())), *(_cell(cells.get(name)) for name in columns)]
            for key, cells in lines.items()]
    shared = [f"{field} {found[0]}" for field, found in values.items() if len(found) == 1]
    title = ", ".join([*shared, "percent ± half the 95 % confidence interval"])
    return _Grid(title, [down, *varying, "cases", *columns], body, 1 + len(varying))


def _cell(row: Summary | None) -> str:
    return "-" if row is None else f"{100 * row.mean:.1f} ±{50 * (row.high - row.low):.1f}"
