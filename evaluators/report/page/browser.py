"""Cases for the page's browser: columns of codes and numbers, compressed, which a script unpacks.

As many cases of each cell (editor, setting, seed and order of edits) as the page has room for, the first by their ids;
how many there are is told beside them.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from editors.core.printable import CELL, printable
from evaluators.files import finite
from evaluators.report.page.asked import WRITTEN
from evaluators.report.pairwise import Pair
from evaluators.report.samples import Setting, combine, encode, name_key
from evaluators.scoring.measures import all_metrics

CELLS = ("editor", *Setting._fields, "seed", "order")
ROOM = 5_000_000  # bytes of compressed data, before base64
CASES = 4000  # of a cell at most, at first
LONGEST = 600  # characters of a text
DIGITS = 5  # of a score


class Packed(NamedTuple):
    """Base64 of gzip of JSON, and what a reader should know of it."""

    data: str
    shown: int
    cases: int


def pack(table: pa.Table, answers: pa.Table | None, pairs: Sequence[Pair]) -> Packed:
    """All scores, answers and comparisons that the page has room for."""
    cap = CASES
    while True:
        content, shown, cases = _content(table, answers, cap)
        content["pairs"] = _pairs(pairs)
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        data = gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)
        if len(data) <= ROOM or cap == 1:
            return Packed(base64.b64encode(data).decode(), shown, cases)
        cap = max(1, min(cap - 1, int(0.9 * cap * ROOM / len(data)), math.ceil(shown / max(1, len(content["cells"])))))


class _Names:
    """Texts by number, each once; shown as what they are."""

    def __init__(self, longest: int = LONGEST) -> None:
        self.texts: list[str] = []
        self._longest = longest
        self._places: dict[str, int] = {}

    def place(self, text: str | None) -> int | None:
        if text is None:
            return None
        if text not in self._places:
            self._places[text] = len(self.texts)
            self.texts.append(printable(text, self._longest))
        return self._places[text]


def _content(table: pa.Table, answers: pa.Table | None, cap: int) -> tuple[dict[str, Any], int, int]:
    known = all_metrics()
    names, subjects, cases = _Names(CELL), _Names(CELL), _Names(CELL)
    cells, shown, total = [], 0, 0
    questions = _Questions(answers) if answers is not None else None
    metric, metrics = encode(table["metric"]) if table.num_rows else (np.zeros(0, np.int64), [])
    for key, rows in _groups(table, CELLS):
        own_case, own_cases = encode(table["case_id"].take(pa.array(rows)))
        total += len(own_cases)
        kept = min(cap, len(own_cases))
        shown += kept
        inside = own_case < kept
        rows, own_case = rows[inside], own_case[inside]
        first = np.unique(own_case, return_index=True)[1]
        cell: dict[str, Any] = dict(zip(CELLS, [names.place(str(each)) if isinstance(each, str) else each
                                                for each in key], strict=True))
        cell |= {"total": len(own_cases), "cases": [cases.place(case) for case in own_cases[:kept]],
                 "subjects": list(map(subjects.place, table["subject"].take(pa.array(rows[first])).to_pylist()))}
        cell["scores"] = _scores(table, rows, own_case, metric[rows], kept)
        if questions is not None:
            cell["answers"] = questions.of(key, own_cases[:kept])
        cells.append(cell)
    about = [[name, known[name].unit, known[name].better] if name in known else [name, "", "higher"]
             for name in metrics]
    order = sorted(range(len(metrics)), key=lambda number: name_key(metrics[number]))
    content = {"names": names.texts, "subjects": subjects.texts, "cases": cases.texts, "metrics": about,
               "order": order, "cells": cells, "texts": questions.texts.texts if questions else [],
               "relations": questions.relations.texts if questions else []}
    return content, shown, total


def _scores(table: pa.Table, rows: Any, case: Any, metric: Any, kept: int) -> dict[int, list[Any]]:
    """By metric, a value for each case; null where a case has none, and a word where it is not finite."""
    values = np.from_dlpack(table["value"].take(pa.array(rows)).combine_chunks())
    found = {}
    for code in np.unique(metric):
        column: list[Any] = [None] * kept
        of_metric = metric == code
        for place, value in zip(case[of_metric].tolist(), values[of_metric].tolist(), strict=True):
            column[place] = _number(value)
        found[int(code)] = column
    return found


def _number(value: float) -> Any:
    if not math.isfinite(value):
        return str(value)
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.{DIGITS}g}")


class _Questions:
    """Answers by cell and case."""

    def __init__(self, answers: pa.Table) -> None:
        self.texts, self.relations = _Names(), _Names(CELL)
        self._answers = answers
        self._rows: dict[tuple[Any, ...], Any] = {}
        self._fields = [field for field in CELLS if field in answers.column_names]
        for key, rows in _groups(answers, self._fields):
            self._rows[key] = rows

    def of(self, key: Sequence[Any], cases: Sequence[str]) -> dict[str, Any] | None:
        wanted = tuple(value for field, value in zip(CELLS, key, strict=True) if field in self._fields)
        if wanted not in self._rows:
            return None
        own = self._answers.take(pa.array(self._rows[wanted]))
        own = own.filter(pc.is_in(own["case_id"], value_set=pa.array(cases, pa.string())))
        places = {case: number for number, case in enumerate(cases)}
        asked: dict[str, list[Any]] = defaultdict(list)
        relation: list[Any] = [None] * len(cases)
        norm, seconds = list(relation), list(relation)
        for row in own.to_pylist():
            place = places[row["case_id"]]
            relation[place] = self.relations.place(row["relation"])
            for column, field in ((norm, "patch_norm"), (seconds, "seconds")):
                if row[field] is not None:
                    column[place] = _number(row[field])
            asked["case"].append(place)
            asked["right"].append(None if row["right"] is None else _number(float(row["right"])))
            for field in ("question", "prompt", "target", "unedited", "edited", *WRITTEN):
                asked[field].append(self.texts.place(row.get(field)))
        return {**asked, "relation": relation, "norm": norm, "seconds": seconds}


def _groups(table: pa.Table, fields: Iterable[str]) -> list[tuple[tuple[Any, ...], Any]]:
    """The rows of each combination of values, editors and numbers in order."""
    if not table.num_rows:
        return []
    fields = list(fields)
    encoded = [encode(table[field]) for field in fields]
    code = combine(encoded)
    order = np.argsort(code, kind="stable")
    bounds = np.flatnonzero(np.diff(code[order], prepend=-1, append=-1))
    found = []
    for start, stop in pairwise(bounds):
        rows = order[start:stop]
        found.append((tuple(names[column[rows[0]]] for column, names in encoded), rows))
    editor = fields.index("editor")
    return sorted(found, key=lambda item: (item[0][:editor] + item[0][editor + 1:], name_key(item[0][editor])))


def _pairs(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Comparisons by setting and metric."""
    groups: dict[tuple[Setting, str], list[Pair]] = defaultdict(list)
    for each in pairs:
        groups[each.setting, each.metric].append(each)
    found = []
    for (setting, metric), own in groups.items():
        editors = sorted({name for each in own for name in (each.editor, each.versus)}, key=name_key)
        places = {editor: number for number, editor in enumerate(editors)}
        found.append({**{field: printable(value, CELL) if isinstance(value, str) else value
                         for field, value in setting._asdict().items()},
                      "metric": metric, "editors": [printable(editor, CELL) for editor in editors],
                      "pairs": [finite([places[each.editor], places[each.versus], round(each.difference, 5),
                                        round(each.low, 5), round(each.high, 5), each.n,
                                        float(f"{each.p:.3g}"), float(f"{each.adjusted:.3g}")]) for each in own]})
    return found

