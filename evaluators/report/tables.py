"""Sums rows of the store up: means with confidence intervals, as a table for people or JSON for programs."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from rich.table import Table

from editors.core.printable import CELL, in_json, printable
from evaluators.files import finite
from evaluators.protocols import PROTOCOLS
from evaluators.report.compare import Comparison
from evaluators.report.costs import Cost, cost_tables
from evaluators.report.grids import Grid, grids_to_markdown, grids_to_rich
from evaluators.report.intervals import bootstrap_statistic, holm
from evaluators.report.samples import UNEDITED, ReportRow, Setting, aggregates, name_key, samples
from evaluators.report.views import Headings, View, footnote, headings, in_order
from evaluators.scoring.measures import all_metrics

TIE = 1e-9  # means that are closer are equal
LONG = 1e6  # plain numbers from here on are written as powers of ten


@dataclass(frozen=True)
class Summary(ReportRow):
    """The mean of one metric over n cases, with the bounds of its 95 % confidence interval, clustered by subject."""

    mean: float
    low: float
    high: float
    n: int


Rows = Sequence[Summary | Comparison | Cost]
R = TypeVar("R", bound=ReportRow)


def in_percent(metric: str) -> bool:
    """Whether people read a metric in percent; one that is in no table is taken as it is."""
    known = all_metrics().get(metric)
    return known is not None and known.unit in ("share", "probability", "cosine")


def summarise(table: pa.Table) -> list[Summary]:
    """Summaries of rows with columns editor, model, dataset, protocol, edits, metric, value, case_id and subject.

    Values of all seeds and orders of edits count alike. The summaries' order, and every number, is independent of the
    order of the rows.
    """
    found, names = samples(table)
    summaries = []
    for sample in found:
        metrics, clusters = sample.metrics, sample.clusters()
        for aggregate in aggregates([names[code] for code in metrics], clusters.counts):
            estimate = bootstrap_statistic(clusters.pick(aggregate.columns), aggregate.statistic)
            for number, (metric, columns) in enumerate(aggregate.uses.items()):
                mean, low, high = (float(part[number]) for part in estimate)
                summaries.append(Summary(sample.editor, *sample.setting, metric, mean, low, high,
                                         sample.cases(metrics[columns])))
    return sorted(summaries, key=lambda row: row.sort_key)


def to_json_lines(rows: Rows) -> str:
    """One JSON object a line, with the fields of its kind of row; numbers that are not finite are null."""
    return "".join(in_json(json.dumps(finite(asdict(row)), ensure_ascii=False)) + "\n" for row in rows)


def to_markdown(rows: Rows, view: View = "main") -> str:
    """Markdown tables, one for each protocol: a row for each editor (and data set, number of edits ...), columns for
    the main metrics, or the paper's with what is behind them.

    The view of all metrics has a row for each metric and a column for each editor instead.
    """
    return grids_to_markdown(grids(rows, view))


def to_rich_tables(rows: Rows, view: View = "main") -> list[Table]:
    """The tables of `to_markdown` for a terminal."""
    return list(grids_to_rich(grids(rows, view)))


def grids(rows: Rows, view: View) -> list[Grid]:
    """One for each protocol; of costs, as `cost_tables` has them."""
    scores = [row for row in rows if not isinstance(row, Cost)]
    return [*_score_grids(scores, view),
            *cost_tables([row for row in rows if isinstance(row, Cost)], view)]


def _score_grids(rows: Sequence[Summary | Comparison], view: View) -> list[Grid]:
    return [grid_of(of_protocol, headings(of_protocol, view), by_metric=view == "all")
            for of_protocol in in_protocols(rows)]


def in_protocols(rows: Sequence[R]) -> list[list[R]]:
    """The rows of each protocol, in the order of the registry."""
    order = {name: number for number, name in enumerate(PROTOCOLS)}
    protocols = sorted({row.protocol for row in rows}, key=lambda name: (order.get(name, len(order)), name))
    return [[row for row in rows if row.protocol == protocol] for protocol in protocols]


def grid_of(rows: Sequence[Summary | Comparison], called: Headings, *, by_metric: bool = False) -> Grid:
    """A table of the rows that are called something: a row for each editor, or for each metric.

    What all rows share goes into the title; what varies gets a column. An editor's (or metric's) numbers of edits
    follow one another.
    """
    down = "metric" if by_metric else "editor"
    shown = sorted((row for row in rows if (row.dataset, row.metric) in called),
                   key=lambda row: (row.model, row.dataset, name_key(getattr(row, down)), row.edits))
    values = {field: list(dict.fromkeys(getattr(row, field) for row in shown)) for field in Setting._fields}
    varying = [field for field in Setting._fields if len(values[field]) > 1]

    lines: dict[tuple[str, ...], dict[str, Summary | Comparison]] = {}
    for row in shown:
        key = tuple(str(getattr(row, field)) for field in (down, *varying))
        lines.setdefault(key, {})[row.editor if by_metric else called[row.dataset, row.metric]] = row
    heads = sorted({row.editor for row in shown}, key=name_key) if by_metric else in_order(called)
    placed = {(line, len(key) + 1 + column): cells[head] for line, (key, cells) in enumerate(lines.items())
              for column, head in enumerate(heads) if head in cells}
    body = [[*map(name_in_cell, key), str(max(cell.n for cell in cells.values())),
             *(value_in_cell(cells.get(name)) for name in heads)] for key, cells in lines.items()]
    shared = [f"{field} {name_in_cell(found[0])}" for field, found in values.items() if len(found) == 1]
    what = ["shares in percent ± half the 95 % confidence interval"]
    if others := sorted({row.versus for row in shown if isinstance(row, Comparison)}):
        versus = ", ".join(map(name_in_cell, others))
        tests = sum(isinstance(row, Comparison) and not math.isnan(row.p_holm) for row in shown)
        correction = f", corrected by Holm (1979) for {tests} comparison{'s' * (tests > 1)}" if tests else ""
        what = [f"difference to {versus} over the cases that both have", *what, f"p by permutation{correction}"]
    return Grid(", ".join([*shared, *what]), [down, *varying, "cases", *map(name_in_cell, heads)], body,
                 1 + len(varying), printable(footnote(called)), leads=leads_of(placed))


def leads_of(placed: Mapping[tuple[int, int], Summary | Comparison]) -> frozenset[tuple[int, int]]:
    """Where the best editors of each setting and metric are; the unedited model is none."""
    rivals: dict[tuple[Any, ...], dict[tuple[int, int], Summary]] = defaultdict(dict)
    for place, row in placed.items():
        if isinstance(row, Summary) and row.editor != UNEDITED:
            rivals[(*row.sort_key[:4], row.metric)][place] = row
    return frozenset(list(found)[number] for found in rivals.values() for number in best_of(list(found.values())))


def best_of(cells: Sequence[Summary | None]) -> list[int]:
    """Which have the best mean of their metric, by its own direction: several that are equal, but none where all are.
    """
    means = {number: row.mean for number, row in enumerate(cells) if row is not None and math.isfinite(row.mean)}
    known = {all_metrics()[row.metric].better for row in cells if row is not None and row.metric in all_metrics()}
    if len(known) != 1 or not means:
        return []
    most = max(means.values()) if known == {"higher"} else min(means.values())
    best = [number for number, mean in means.items() if math.isclose(mean, most, rel_tol=TIE, abs_tol=TIE)]
    return best if len(best) < sum(row is not None for row in cells) else []


def corrected(rows: Sequence[Comparison], view: View) -> list[Comparison]:
    """The comparisons with `p_holm`: a family are those that one table of the view shows, so that each is corrected for
    as many as people look through. What no table shows has none."""
    families: dict[str, list[int]] = defaultdict(list)
    called = headings(rows, view)
    for number, row in enumerate(rows):
        if (row.dataset, row.metric) in called:
            families[row.protocol].append(number)
    found = list(rows)
    for family in families.values():
        for number, p in zip(family, holm(np.array([rows[number].p for number in family])), strict=True):
            found[number] = replace(rows[number], p_holm=float(p))
    return found


def name_in_cell(value: object) -> str:
    return printable(str(value), CELL)


def value_in_cell(row: Summary | Comparison | None) -> str:
    if row is None:
        return "-"
    half = (row.high - row.low) / 2
    if isinstance(row, Comparison):
        p = row.p if math.isnan(row.p_holm) else row.p_holm
        told = f" (p {p:.2g})" if math.isfinite(p) else ""
        return show_value(row.metric, row.difference, half, "+") + told
    return show_value(row.metric, row.mean, half, "-")


def show_value(metric: str, value: float, half: float, sign: str = "-") -> str:
    """A value ± half its interval, in percent or with three significant digits; alone where they are not finite."""
    if not math.isfinite(value + half):
        return f"{value:{sign}}"
    if in_percent(metric):
        return f"{100 * value:{sign}z.1f} ±{100 * half:.1f}"
    size = max(abs(value), half)
    form = "z.3g" if size >= LONG else f"z.{max(0, 2 - math.floor(math.log10(size or 1)))}f"
    return f"{value:{sign}{form}} ±{half:{form}}"
