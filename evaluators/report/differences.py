"""What is not the same in the rows of two campaigns: numbers that should be equal, means of what was done otherwise.

Codes and sorts by numpy, as in `samples`: a million rows on each side take seconds, and no loop over rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evaluators.report.compare import compare_samples, pair
from evaluators.report.grids import Grid
from evaluators.report.intervals import Array, Codes
from evaluators.report.samples import ReportRow, Sample, Setting, aggregates, combine, encode, name_key, samples
from evaluators.report.tables import name_in_cell, show_value
from evaluators.report.views import is_main

SAME = ("task", "metric", "case_id")  # what rows of the same number share
SIDES = "AB"


@dataclass(frozen=True)
class ChangedNumbers:
    """One metric of tasks that both sides have: how many `numbers` both have, how many of them `changed`, and how many
    only one of them has; the `largest` difference (B - A), and where it is."""

    metric: str
    numbers: int
    changed: int
    only_a: int
    only_b: int
    largest: float
    task: str
    case_id: str


@dataclass(frozen=True)
class CellDifference(ReportRow):
    """The means of one metric where both sides have other tasks; the difference (B - A) over the n cases both have, and
    the bounds of its 95 % confidence interval. NaN where there is none."""

    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    n: int


def changed_numbers(first: pa.Table, second: pa.Table, tolerance: float = 0.0) -> list[ChangedNumbers]:
    """The metrics of which rows of the same task, case and metric differ by more than `tolerance` (of the larger of
    both numbers, where that is above 1), or are on one side alone. Several rows of one case pair by their size."""
    whole = pa.concat_tables([table.select([*SAME, "value"]) for table in (first, second)])
    if not whole.num_rows:
        return []
    columns = [encode(whole[name]) for name in SAME]
    values = np.from_dlpack(whole["value"].combine_chunks()).astype(np.float64)
    key, split = combine(columns), len(first)
    ranks = [_ranks(key[part], values[part]) for part in (slice(split), slice(split, None))]
    repeats = 1 + max(rank.max(initial=0) for rank in ranks)
    own, other = key[:split] * repeats + ranks[0], key[split:] * repeats + ranks[1]
    _, left, right = np.intersect1d(own, other, assume_unique=True, return_indices=True)
    gap = _gaps(values[left], values[split + right], tolerance)
    metric, found = columns[1][0], []
    (_, tasks), (_, metrics), (_, cases) = columns
    single = [metric[np.delete(np.arange(split), left)], metric[np.delete(np.arange(split, len(key)), right)]]
    size = len(metrics)
    numbers, changed, only_a, only_b = (np.bincount(codes, minlength=size) for codes in (
        metric[left], metric[left[gap != 0]], *single))
    for code in np.flatnonzero(changed + only_a + only_b):
        rows = np.flatnonzero(metric[left] == code)
        worst = rows[np.argmax(np.abs(gap[rows]))] if changed[code] else None
        place = None if worst is None else left[worst]
        found.append(ChangedNumbers(
            metrics[code], int(numbers[code]), int(changed[code]), int(only_a[code]), int(only_b[code]),
            0.0 if worst is None else float(gap[worst]), "" if place is None else tasks[columns[0][0][place]],
            "" if place is None else cases[columns[2][0][place]]))
    return sorted(found, key=lambda row: name_key(row.metric))


def _ranks(key: Codes, values: Array) -> Codes:
    """Which of the rows with the same key each is, by the size of its value."""
    order = np.lexsort((values, key))
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    ranks = np.empty_like(key)
    ranks[order] = np.arange(len(key)) - np.repeat(starts, np.diff(starts, append=len(key)))
    return ranks


@np.errstate(invalid="ignore")
def _gaps(first: Array, second: Array, tolerance: float) -> Array:
    """second - first; 0 where they are the same or nearly so, and infinite where just one of them is a number."""
    sizes = np.maximum(1.0, np.maximum(np.abs(first), np.abs(second)))
    gap: Array = second - first
    gap = np.where(np.isnan(gap), np.inf, gap)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    return np.where(same | (np.isfinite(gap) & (np.abs(gap) <= tolerance * sizes)), 0.0, gap)


class Cell(NamedTuple):
    """What tables have a row for."""

    editor: str
    setting: Setting


def cells(table: pa.Table) -> dict[Cell, set[str]]:
    """The tasks that each cell has rows of."""
    names = ["editor", *Setting._fields, "task"]
    found: dict[Cell, set[str]] = {}
    for row in table.select(names).group_by(names).aggregate([]).to_pylist():
        cell = Cell(row["editor"], Setting(*(row[name] for name in Setting._fields)))
        found.setdefault(cell, set()).add(row["task"])
    return found


def of_tasks(table: pa.Table, tasks: set[str]) -> pa.Table:
    return table.filter(pc.is_in(table["task"], value_set=pa.array(sorted(tasks), pa.string())))


def compare_cells(first: pa.Table, second: pa.Table) -> list[CellDifference]:
    """Both sides' means of every cell that both have, and their differences where both have the same cases."""
    both = pa.concat_tables([_marked(first, SIDES[0]), _marked(second, SIDES[1])])
    found, metrics = samples(both)
    by_cell: dict[Cell, dict[str, Sample]] = {}
    for sample in found:
        by_cell.setdefault(Cell(sample.editor[1:], sample.setting), {})[sample.editor[0]] = sample
    differences = [each for cell, sides in by_cell.items() if len(sides) == len(SIDES)
                   for each in _differences(cell, sides["A"], sides["B"], metrics)]
    return sorted(differences, key=lambda row: row.sort_key)


def _marked(table: pa.Table, side: str) -> pa.Table:
    """The rows with the side before the editor's name, which tells them apart where they are together."""
    codes, names = encode(table["editor"])
    column = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([side + name for name in names], pa.string()))
    return table.set_column(table.column_names.index("editor"), "editor", column.cast(pa.string()))


def _differences(cell: Cell, first: Sample, second: Sample, metrics: Sequence[str]) -> Iterator[CellDifference]:
    means, others = _means(first, metrics), _means(second, metrics)
    later, earlier, _ = pair(second, first)
    paired = {row.metric: row for row in compare_samples(later, earlier, metrics)} if len(later.values) else {}
    for metric in sorted({*means, *others}, key=name_key):
        row = paired.get(metric)
        difference = (row.difference, row.low, row.high, row.n) if row else (np.nan, np.nan, np.nan, 0)
        yield CellDifference(cell.editor, *cell.setting, metric, means.get(metric, np.nan),
                             others.get(metric, np.nan), *difference)


def _means(sample: Sample, names: Sequence[str]) -> dict[str, float]:
    clusters = sample.clusters()
    return {metric: float(value) for aggregate in aggregates([names[code] for code in sample.metrics], clusters.counts)
            for metric, value in zip(aggregate.uses, aggregate.statistic(clusters.pick(aggregate.columns).means),
                                     strict=True)}


def changes_grid(rows: Sequence[ChangedNumbers], titles: dict[str, str]) -> Grid:
    """A row for each metric; `titles` has those of tasks, by id."""
    body = [[row.metric, str(row.numbers), str(row.changed), str(row.only_a), str(row.only_b),
             f"{row.largest:+.3g}" if row.changed else "-", name_in_cell(row.case_id) or "-",
             name_in_cell(titles.get(row.task, row.task)) or "-"] for row in rows]
    return Grid("changed numbers: tasks are the same, and their results are not",
                ["metric", "in both", "changed", "only in A", "only in B", "largest (B - A)", "in case", "in task"],
                body, 1, "")


def cells_grid(rows: Sequence[CellDifference], every: bool) -> Grid:
    """A row for each cell and metric: the main ones, unless `every` is asked for. What all share is in the title."""
    shown = [row for row in rows if every or is_main(row.metric)]
    fields = ("editor", *Setting._fields)
    values = {field: {getattr(row, field) for row in shown} for field in fields}
    varying = [field for field in fields if field == "editor" or len(values[field]) > 1]
    shared = [f"{field} {name_in_cell(*found)}" for field, found in values.items()
              if field not in varying and len(found) == 1]
    body = [[*(name_in_cell(getattr(row, field)) for field in varying), row.metric, _mean(row.metric, row.mean_a),
             _mean(row.metric, row.mean_b), str(row.n), _difference(row)] for row in shown]
    title = ", ".join(["done by other tasks", *shared, "shares in percent"])
    return Grid(title, [*varying, "metric", "A", "B", "in both", "B - A"], body, 1 + len(varying),
                "B - A over the cases that both have, ± half its 95 % confidence interval")


def _mean(metric: str, value: float) -> str:
    return "-" if np.isnan(value) else show_value(metric, value, 0.0).partition(" ±")[0]


def _difference(row: CellDifference) -> str:
    return show_value(row.metric, row.difference, (row.high - row.low) / 2, "+") if row.n else "-"
