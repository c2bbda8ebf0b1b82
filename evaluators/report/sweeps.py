"""Campaigns that are swept over settings: a table for each entry that is, with a row for each of its points."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple

from editors.core.printable import in_json, printable
from evaluators.report.grids import Grid
from evaluators.report.samples import Setting
from evaluators.report.tables import Summary, best_of, in_protocols, name_in_cell, value_in_cell
from evaluators.report.views import View, footnote, headings, in_order

Part = Literal["models", "datasets", "editors"]
COLUMNS: dict[Part, str] = {"models": "model", "datasets": "dataset", "editors": "editor"}
BEST = ("Marked (bold, or *) is the best mean of its column; a point whose interval reaches it may be as good, which "
        "--versus tells of editors")


@dataclass(frozen=True)
class Point:
    """One entry of a sweep: its name in rows, the entry it varies, and what it has in each of the swept settings."""

    part: Part
    name: str
    varies: str
    settings: Mapping[str, Any]


class Sweep(NamedTuple):
    """The points of an entry that have values of the same settings, by name, in the order of these values."""

    part: Part
    varies: str
    settings: tuple[str, ...]
    points: Mapping[str, Point]

    @property
    def column(self) -> str:
        """Which column of rows tells points apart."""
        return COLUMNS[self.part]

    def values(self, name: str) -> list[Any]:
        """All values of a setting, in order."""
        found = {value_key(point.settings[name]): point.settings[name] for point in self.points.values()}
        return [found[key] for key in sorted(found)]


class Block(NamedTuple):
    """The rows of a sweep where all else is the same: `where` has the columns that do not tell points apart."""

    where: Mapping[str, Any]
    rows: Sequence[Summary]


def sweeps(points: Iterable[Point]) -> list[Sweep]:
    """The points by what they vary, and by the settings they have."""
    found: dict[tuple[Part, str, tuple[str, ...]], list[Point]] = defaultdict(list)
    for point in points:
        found[point.part, point.varies, tuple(point.settings)].append(point)
    return [Sweep(*key, {point.name: point for point in sorted(
        group, key=lambda point: [value_key(value) for value in point.settings.values()])})
        for key, group in found.items()]


def value_key(value: Any) -> tuple[Any, ...]:
    """Sorts the values of a setting: numbers by size, behind what is unset or a boolean, and before texts and lists."""
    if value is None or isinstance(value, bool):
        return int(value is not None), float(value or 0)
    if isinstance(value, int | float):
        return 2, float(value)
    if isinstance(value, list):
        return 4, tuple(map(value_key, value))
    return (3, value) if isinstance(value, str) else (5, json.dumps(value, sort_keys=True))


def shown_value(value: Any) -> str:
    return name_in_cell(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def blocks(sweep: Sweep, rows: Iterable[Summary]) -> list[Block]:
    """The rows of a sweep's points, by all that does not tell points apart; each block in the order of its points."""
    order = {name: number for number, name in enumerate(sweep.points)}
    fields = [field for field in ("editor", *Setting._fields) if field != sweep.column]
    own = [row for row in rows if getattr(row, sweep.column) in order]

    def where(row: Summary) -> tuple[Any, ...]:
        return tuple(getattr(row, field) for field in fields)

    return [Block(dict(zip(fields, key, strict=True)), sorted(
        group, key=lambda row: (order[getattr(row, sweep.column)], row.metric)))
        for key, group in groupby(sorted(own, key=where), key=where)]


def points_to_json_lines(points: Iterable[Point]) -> str:
    """One JSON object a line, which tells the settings that a name in rows stands for."""
    return "".join(in_json(json.dumps(asdict(point), ensure_ascii=False)) + "\n" for point in points)


def sweep_grids(rows: Sequence[Summary], points: Iterable[Point], view: View) -> Iterator[Grid]:
    """A table for each sweep and protocol: a row for each point, a column for each setting, the main metrics or the
    paper's."""
    for sweep in sweeps(points):
        own = [row for row in rows if getattr(row, sweep.column) in sweep.points]
        for of_protocol in in_protocols(own):
            yield _grid(sweep, of_protocol, "paper" if view == "paper" else "main")


def _grid(sweep: Sweep, rows: Sequence[Summary], view: View) -> Grid:
    called = headings(rows, view)
    heads, found = in_order(called), blocks(sweep, [row for row in rows if (row.dataset, row.metric) in called])
    varying = [name for name in (found[0].where if found else ()) if len({block.where[name] for block in found}) > 1]
    shared = [f"{name} {name_in_cell(value)}" for name, value in (found[0].where.items() if found else ())
              if name not in varying]
    body, best = list[list[str]](), set[tuple[int, int]]()
    names = len(varying) + len(sweep.settings)
    for block in found:
        lines: dict[str, dict[str, Summary]] = defaultdict(dict)
        for row in block.rows:
            lines[getattr(row, sweep.column)][called[row.dataset, row.metric]] = row
        for column, head in enumerate(heads, names + 1):
            cells = [line.get(head) for line in lines.values()]
            best |= {(len(body) + number, column) for number in best_of(cells)}
        body += [[*(name_in_cell(block.where[name]) for name in varying),
                  *map(shown_value, sweep.points[name].settings.values()),
                  str(max(row.n for row in line.values())), *(value_in_cell(line.get(head)) for head in heads)]
                 for name, line in lines.items()]
    title = ", ".join([f"{name_in_cell(sweep.varies)} by {' and '.join(map(name_in_cell, sweep.settings))}", *shared])
    note = "; ".join(filter(None, [BEST if best else "", printable(footnote(called))]))
    return Grid(title, [*varying, *map(name_in_cell, sweep.settings), "cases", *map(name_in_cell, heads)], body, names,
                note, frozenset(best))
