"""The page's tables without the page: as Markdown, LaTeX or text, and for programs a line for each cell."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from editors.core.printable import in_json, printable
from evaluators.files import finite
from evaluators.report import grids
from evaluators.report.page.blocks import ASPECTS, LONG, NOTHING, WAYS, Cell, Figure, Grid, name, of_editor
from evaluators.report.page.scores import where
from evaluators.report.page.sections import Measured
from evaluators.report.pairwise import Pair
from evaluators.report.samples import Setting, name_key
from evaluators.report.sheets import spelt
from evaluators.report.tables import show_value

NUMBERS = ("mean", "difference", "low", "high", "p", "p_holm", "n")
COLUMNS = ("section", "table", "row", "column", "metric", *NUMBERS, "paper", "text")
B = TypeVar("B", Grid, Figure)
SHOWN = frozenset(base for bases in ASPECTS.values() for base in bases)  # what people are shown comparisons in


def tables(found: Measured, way: str) -> Iterator[grids.Grid]:
    """All tables in which answers are taken in this `way`, or in the first that there is where none are; comparisons
    of editors in the paper's four aspects."""
    every = [(section, grid) for section, grid in _grids(found)
             if section != "pairs" or not grid.way or _base(grid) in SHOWN]
    return map(_plain, of_way([grid for _, grid in every], way))


def of_way(blocks: Sequence[B], way: str) -> list[B]:
    """Those in which answers are taken in this way, or in the first that there is where none are; and those that have
    none."""
    ways = {block.way for block in blocks}
    chosen = way if way in ways else next((each for each in WAYS if each in ways), "")
    return [block for block in blocks if block.way in ("", chosen)]


def to_csv(found: Measured) -> str:
    """A line for every cell of every table, its numbers in their own unit (shares from 0 to 1)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in _lines(found):
        row = ", ".join(line["row"].values())
        writer.writerow([spelt(line.get(column) if column != "row" else row) for column in COLUMNS])
    return text.getvalue()


def to_json_lines(found: Measured) -> str:
    """A JSON object for every cell of every table; what a cell has no number for is not in it."""
    return "".join(in_json(json.dumps(finite(line), ensure_ascii=False)) + "\n" for line in _lines(found))


def _lines(found: Measured) -> Iterator[dict[str, Any]]:
    for section, grid in _grids(found):
        for row in grid.rows:
            names = {head: cell.text for head, cell in zip(grid.heads, row[:grid.names], strict=False)}
            for head, cell in zip(grid.heads[grid.names:], row[grid.names:], strict=True):
                if cell.text != NOTHING.text or cell.data:
                    numbers = {key: (int if key == "n" else float)(cell.data[key]) for key in NUMBERS
                               if key in cell.data}
                    metric = {"metric": cell.data["metric"]} if "metric" in cell.data else {}
                    paper = {"paper": round(float(cell.paper.split()[0]) / 100, 6)} if cell.paper else {}
                    yield {"section": section, "table": grid.caption, "row": names, "column": head, **metric, **numbers,
                           **paper, "text": cell.text}


def _grids(found: Measured) -> Iterator[tuple[str, Grid]]:
    for section in found.sections:
        blocks = pair_grids(found.pairs) if section.kind == "pairs" else section.blocks
        yield from ((section.id, block) for block in blocks if isinstance(block, Grid))


def pair_grids(pairs: Sequence[Pair]) -> Iterator[Grid]:
    """For each setting and metric every editor (a row) less every other (a column)."""
    groups: dict[tuple[Setting, str], dict[tuple[str, str], Pair]] = defaultdict(dict)
    for each in pairs:
        groups[each.setting, each.metric][each.editor, each.versus] = each
    for (setting, metric), own in groups.items():
        editors = sorted({editor for both in own for editor in both}, key=name_key)
        body = [[of_editor(row), *(_difference(own.get((row, column))) for column in editors[:-1])]
                for row in editors[1:]]
        yield Grid(f"Editor against editor: {metric}, {where(setting)}, {setting.protocol}",
                   ["editor", *(name(editor).text for editor in editors[:-1])], body, way=metric.rpartition(".")[2]
                   if metric.rpartition(".")[2] in WAYS else "", note=(
                       "The row's editor less the column's over the cases that both have, ± half the 95 % confidence "
                       f"interval; p by permutation, corrected by Holm (1979) for {len(own)} comparisons."))


def _difference(found: Pair | None) -> Cell:
    if found is None:
        return NOTHING
    told = f" (p {found.adjusted:.2g})" if math.isfinite(found.adjusted) else ""
    text = show_value(found.metric, found.difference, (found.high - found.low) / 2, "+") + told
    numbers = {"difference": found.difference, "low": found.low, "high": found.high, "n": found.n, "p": found.p,
               "p_holm": found.adjusted}
    return Cell(text, data={"metric": found.metric, **{key: repr(value) for key, value in numbers.items()}})


def _base(grid: Grid) -> str:
    """What a table of comparisons is of, less the way that answers are taken."""
    metrics = {cell.data["metric"] for row in grid.rows for cell in row if "metric" in cell.data}
    return min(metrics).rpartition(".")[0]


def _plain(grid: Grid) -> grids.Grid:
    """With the number of cases in a column of its own, where there are any, and without columns of sentences, which no
    table to paste has room for."""
    kept = [column for column, head in enumerate(grid.heads) if column < grid.names or all(
        len(row[column].text) <= LONG for row in grid.rows)]
    grid = replace(grid, heads=[grid.heads[column] for column in kept],
                   rows=[[row[column] for column in kept] for row in grid.rows])
    cases = [max((int(cell.data["n"]) for cell in row if "n" in cell.data), default=None) for row in grid.rows]
    counted = any(count is not None for count in cases)
    head = [*grid.heads[:grid.names], *(["cases"] if counted else []), *grid.heads[grid.names:]]
    body = [[*(_text(cell) for cell in row[:grid.names]), *([_count(count)] if counted else []),
             *map(_text, row[grid.names:])] for row, count in zip(grid.rows, cases, strict=True)]
    best = frozenset((line, column + counted * (column >= grid.names)) for line, row in enumerate(grid.rows)
                     for column, cell in enumerate(row) if cell.best)
    return grids.Grid(printable(grid.caption), list(head), body, grid.names, printable(grid.note), best)


def _count(count: int | None) -> str:
    return "-" if count is None else str(count)


def _text(cell: Cell) -> str:
    """What a cell says, with the smaller lines of one that has no numbers, and the paper's number of one that has."""
    lines = [f"paper {cell.paper}"] if cell.paper else [] if cell.data else list(cell.more)
    return cell.text + (f" ({', '.join(lines)})" if lines else "")
