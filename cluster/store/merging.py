"""Campaigns of several stores as one table of rows: what is the same counts once, and nothing is pooled that no
campaign would have pooled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.store.records import SweptEntry
from cluster.store.source import Source
from editors.core.errors import InputError
from evaluators.report.costs import parted
from evaluators.report.differences import Cell, cells
from evaluators.report.samples import Setting, combine, encode
from evaluators.report.stores import LETTERS, labelled


class Merged(NamedTuple):
    """The scores and the costs of all sources, their sweeps, and what people should know of how they came together."""

    scores: pa.Table
    costs: pa.Table
    sweep: list[SweptEntry]
    notes: list[str]


def letters(stores: int) -> str:
    """What so many stores are called. Raises `InputError` for too many."""
    if stores > len(LETTERS):
        raise InputError(f"{stores} stores are too many to be told apart; report at most {len(LETTERS)} at once")
    return LETTERS[:stores]


def merge(sources: Sequence[Source]) -> Merged:
    """The rows of all sources together.

    A task that several have counts once, as the first has it. A cell (an editor in a setting) of which sources have
    different tasks is pooled only where one of their campaigns plans all of these tasks, as then it is that campaign's
    own cell, made in several places. Else they may be of other data, versions or settings under the same names: the
    sources keep the rows of the whole setting apart, under the data set's name and their letter.

    Raises `InputError` where the sources' sweeps mean different settings by one name.
    """
    if len(sources) == 1:
        scores, costs = parted(sources[0].rows)
        return Merged(scores, costs, list(sources[0].record.sweep), [])
    pairs = [parted(source.rows) for source in sources]
    scores, told = _scores(sources, [pair[0] for pair in pairs])
    costs, told_of_costs = _costs(sources, [pair[1] for pair in pairs])
    return Merged(scores, costs, _sweep(sources), [*told, *told_of_costs])


def _scores(sources: Sequence[Source], tables: Sequence[pa.Table]) -> tuple[pa.Table, list[str]]:
    found = [cells(table) for table in tables]
    apart = _apart(sources, found)
    parts, notes, seen = list[pa.Table](), list(_told_apart(sources, found, apart)), dict[str, str]()
    repeated: dict[str, set[str]] = defaultdict(set)
    for source, table in zip(sources, tables, strict=True):
        own = _within(table, apart)
        parts.append(_labelled(table.filter(pa.array(own)), source.letter))
        common = table.filter(pa.array(~own))
        tasks = set(pc.unique(common["task"]).to_pylist())
        for task in tasks & seen.keys():
            repeated[seen[task]].add(task)
        new = pc.is_in(common["task"], value_set=pa.array(sorted(tasks - seen.keys()), pa.string()))
        parts.append(common.filter(new))
        seen |= dict.fromkeys(tasks - seen.keys(), source.letter)
    notes += [f"what {letter} and others have counts once, as {letter} has it: {len(tasks)} "
              f"{'task' if len(tasks) == 1 else 'tasks'}" for letter, tasks in repeated.items()]
    return pa.concat_tables(parts), notes


def _apart(sources: Sequence[Source], found: Sequence[dict[Cell, set[str]]]) -> set[Setting]:
    """The settings in which sources have tasks for one cell that no campaign of them plans together."""
    planned = [{task.id for task in source.record.tasks} for source in sources]
    apart = set[Setting]()
    for cell in set().union(*found):
        having = [tasks[cell] for tasks in found if cell in tasks]
        together = set().union(*having)
        if any(tasks != together for tasks in having) and not any(together <= plan for plan in planned):
            apart.add(cell.setting)
    return apart


def _told_apart(sources: Sequence[Source], found: Sequence[dict[Cell, set[str]]],
                apart: set[Setting]) -> Iterator[str]:
    for setting in sorted(apart):
        model, dataset, protocol, edits = setting
        names = [labelled(dataset, source.letter) for source, own in zip(sources, found, strict=True)
                 if any(cell.setting == setting for cell in own)]
        many = "edit" if edits == 1 else "edits"
        yield (f"{dataset} on {model}, {protocol}, {edits} {many}: the stores' rows are of other tasks (other "
               "cases, versions or settings), so they are not pooled, but called "
               f"{' and '.join(map(repr, names))}; `editfleet diff` tells what differs between two stores")


def _within(table: pa.Table, settings: set[Setting]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows are of these settings."""
    if not table.num_rows or not settings:
        return np.zeros(table.num_rows, np.bool_)
    columns = [encode(table[name]) for name in Setting._fields]
    codes = combine(columns)
    _, first = np.unique(codes, return_index=True)
    chosen = [Setting(*(values[code[row]] for code, values in columns)) in settings for row in first]
    return np.array(chosen, np.bool_)[codes]


def _labelled(table: pa.Table, letter: str) -> pa.Table:
    codes, names = encode(table["dataset"])
    column = pa.DictionaryArray.from_arrays(pa.array(codes),
                                            pa.array([labelled(name, letter) for name in names], pa.string()))
    return table.set_column(table.column_names.index("dataset"), "dataset", column.cast(pa.string()))


def _costs(sources: Sequence[Source], tables: Sequence[pa.Table]) -> tuple[pa.Table, list[str]]:
    """Measurements are of one task each, and the same task may have been measured in several stores: on devices of
    other kinds all count, on the same kind the first. Of other tasks each has the store's letter."""
    measured: dict[tuple[object, ...], dict[str, str]] = defaultdict(dict)  # the task of each store
    rows = [[(row, (row["editor"], *(row[name] for name in Setting._fields), *(row["texts"] or ())))
             for row in table.to_pylist()] for table in tables]
    for source, own in zip(sources, rows, strict=True):
        for row, key in own:
            measured[key][source.letter] = row["task"]
    kept, twice = list[dict[str, object]](), set[str]()
    for source, own in zip(sources, rows, strict=True):
        for row, key in own:
            tasks = measured[key]
            if len(set(tasks.values())) > 1:
                kept.append({**row, "dataset": labelled(row["dataset"], source.letter)})
            elif source.letter == min(tasks):
                kept.append(row)
            else:
                twice.add(row["task"])
    notes = [f"costs of {len(twice)} {'task' if len(twice) == 1 else 'tasks'} were measured in several stores, on the "
             "same kind of device: the first store's count"] if twice else []
    return pa.Table.from_pylist(kept, schema=tables[0].schema), notes


def _sweep(sources: Sequence[Source]) -> list[SweptEntry]:
    found: dict[tuple[str, str], SweptEntry] = {}
    for source in sources:
        for entry in source.record.sweep:
            if found.setdefault((entry.part, entry.name), entry) != entry:
                raise InputError(f"the sweep of '{source.record.name}' in {source.store.place} means other settings by "
                                 f"'{entry.name}' than a store before it; report them one by one, or compare them with "
                                 "`editfleet diff`")
    return list(found.values())
