"""What single answers tell beyond scores: by the target's length, by relation, and for neighbours with the same answer
as the edit's subject and with another.

Answers are a table with a row for each question asked of an edited model: the columns `KEYS`, and `question` (what it
is measured as: a metric's name without how), `prompt`, `target`, what the `unedited` and the `edited` model say,
whether that is `right`, `patch_norm` and `seconds`. It may have what models wrote freely (`WRITTEN`), and
`target_true`, the answer that the edit takes away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from editors.core.errors import InputError
from evaluators.report.intervals import Array, Codes, Interval, bootstrap
from evaluators.report.page.blocks import NOTHING, Cell, Grid, name, of_editor
from evaluators.report.page.scores import where
from evaluators.report.samples import Setting, combine, encode, name_key

KEYS = ("editor", *Setting._fields, "seed", "case_id", "subject", "relation")
COLUMNS = (*KEYS, "question", "prompt", "target", "unedited", "edited", "right", "patch_norm", "seconds")
WRITTEN = ("unedited_written", "edited_written")
TRUE = "target_true"
LENGTHS = 4  # groups of targets by length
QUESTIONS = {"reliability": "the edited prompt", "generality": "its paraphrases", "locality": "neighbours"}
SAME, OTHER = "same answer", "other answer"
Means = Mapping[str, Mapping[str, Interval]]  # by editor and label


def checked(answers: pa.Table) -> pa.Table:
    """The answers with plain texts, not codes. Raises `InputError` where a column is missing."""
    if lost := set(COLUMNS) - set(answers.column_names):
        raise InputError(f"the table of answers lacks {', '.join(sorted(lost))}; it has "
                         f"{', '.join(answers.column_names)}")
    kinds = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in answers.schema]
    return answers.cast(pa.schema(list(zip(answers.column_names, kinds, strict=True))))


class Texts(NamedTuple):
    """A column of texts: codes, and the texts by code."""

    code: Codes
    names: list[str]

    @staticmethod
    def of(column: pa.ChunkedArray) -> Texts:
        code, names = encode(pc.fill_null(column, ""))
        return Texts(code, names)

    def each(self) -> Iterator[str]:
        return (self.names[code] for code in self.code)


class Asked(NamedTuple):
    """The answers to one kind of question about single edits, column by column: whether each is right, of which cell
    (editor and setting), and its texts."""

    right: Array
    cell: Codes
    cells: list[tuple[str, Setting]]
    subject: Texts
    relation: Texts
    target: Texts
    true: Texts | None


def asked(answers: pa.Table, wanted: str) -> Asked | None:
    """The answers to a kind of question; None where there are none."""
    single = answers.filter(pc.and_(pc.equal(answers["protocol"], "single"),
                                    pc.is_valid(answers["right"])))
    single = single.filter(pc.is_in(single["question"], value_set=pa.array([wanted])))
    if not single.num_rows:
        return None
    encoded: list[tuple[Codes, list[Any]]] = [encode(single[field]) for field in ("editor", *Setting._fields)]
    cell = combine(encoded)
    first = np.unique(cell, return_index=True)[1]
    cells = [(encoded[0][1][encoded[0][0][at]], Setting(*(values[code[at]] for code, values in encoded[1:])))
             for at in first]
    right = np.array(single["right"].to_pylist(), np.float64)
    subject, relation, target = (Texts.of(single[field]) for field in ("subject", "relation", "target"))
    return Asked(right, cell, cells, subject, relation, target,
                 Texts.of(single[TRUE]) if TRUE in single.column_names else None)


def by_length(answers: pa.Table) -> Iterator[Grid]:
    """Reliability by the target's length in characters, in groups of about as many cases."""
    found = asked(answers, "reliability")
    if found is None:
        return
    lengths = np.array([len(text) for text in found.target.names])[found.target.code]
    cuts = sorted({int(cut) for cut in np.quantile(lengths, np.arange(1, LENGTHS) / LENGTHS, method="lower")})
    group = np.searchsorted(cuts, lengths)  # a length that is a cut belongs below it
    labels = {}
    for number in np.unique(group):
        least, most = lengths[group == number].min(), lengths[group == number].max()
        labels[number] = f"{least}" if least == most else f"{least}-{most}"
    yield from _grids(found, [labels[each] for each in group], "Reliability by the target's length in characters",
                      "Answers to the edited prompt that are right (share of tokens), in percent, ± half the 95 % "
                      "confidence interval.", list(labels.values()))


def by_neighbour(answers: pa.Table) -> Iterator[Grid]:
    """Locality of neighbours whose answer is the one the edit takes away, and of others."""
    found = asked(answers, "locality")
    if found is None or found.true is None or not any(found.true.names):
        return
    labels = [SAME if _alike(true, target) else OTHER
              for true, target in zip(found.true.each(), found.target.each(), strict=True)]
    yield from _grids(found, labels, "Locality of neighbours with the same answer, and with another",
                      "The same answer as the one that the edit takes away. Agreement with the unedited model (share "
                      "of tokens), in percent, ± half the 95 % confidence interval.",
                      [SAME, OTHER])


def _alike(first: str, second: str) -> bool:
    return first.strip().casefold() == second.strip().casefold()


def by_relation(answers: pa.Table) -> Iterator[Grid]:
    """A heat map for each kind of question: relations down, editors across."""
    for wanted, called in QUESTIONS.items():
        found = asked(answers, wanted)
        if found is None or not any(found.relation.names):
            continue
        for setting, means in _means(found, list(found.relation.each())):
            editors = sorted(means, key=name_key)
            relations = sorted({relation for row in means.values() for relation in row})
            yield Grid(f"Editors by relation: {called}, {where(setting)}",
                       ["relation", *(name(editor).text for editor in editors)],
                       [[name(relation or "(none)"), *(_heat(means[editor].get(relation)) for editor in editors)]
                        for relation in relations],
                       note="Right answers (share of tokens), in percent, with the number of answers; the darker, the "
                            "more.", folded=wanted != "reliability")


def _heat(found: Interval | None) -> Cell:
    if found is None:
        return NOTHING
    return Cell(f"{100 * found.mean:.0f}", [f"n {found.n}"], _numbers(found),
                shade=round(10 * min(max(found.mean, 0.0), 1.0)))


def _grids(found: Asked, labels: Sequence[str], title: str, note: str, order: Sequence[str]) -> Iterator[Grid]:
    """A row for each editor, a column for each label, a table for each setting."""
    for setting, means in _means(found, labels):
        heads = [label for label in order if any(label in row for row in means.values())]
        yield Grid(f"{title}: {where(setting)}", ["editor", *heads],
                   [[of_editor(editor), *(_estimate(means[editor].get(label)) for label in heads)]
                    for editor in sorted(means, key=name_key)], note=note)


def _estimate(found: Interval | None) -> Cell:
    if found is None:
        return NOTHING
    half = 100 * (found.high - found.low) / 2
    return Cell(f"{100 * found.mean:.1f} ±{half:.1f}", [f"n {found.n}"], _numbers(found))


def _numbers(found: Interval) -> dict[str, str]:
    return {"mean": repr(found.mean), "low": repr(found.low), "high": repr(found.high), "n": str(found.n)}


def _means(found: Asked, labels: Sequence[str]) -> Iterator[tuple[Setting, Means]]:
    """Each setting with the means of every editor and label there, and their intervals by subject."""
    names = sorted(set(labels))
    places = {label: number for number, label in enumerate(names)}
    code = found.cell * len(names) + np.array([places[label] for label in labels])
    order = np.argsort(code, kind="stable")
    bounds = np.flatnonzero(np.diff(code[order], prepend=-1, append=-1))
    settings: dict[Setting, dict[str, dict[str, Interval]]] = {}
    for start, stop in pairwise(bounds):
        rows = order[start:stop]
        editor, setting = found.cells[found.cell[rows[0]]]
        subjects = [found.subject.names[code] for code in found.subject.code[rows]]
        interval = bootstrap(found.right[rows].tolist(), subjects)
        settings.setdefault(setting, {}).setdefault(editor, {})[labels[rows[0]]] = interval
    yield from sorted(settings.items())
