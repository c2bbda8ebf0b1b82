"""Rows of the store as arrays: what each editor scored in each setting, and what is worked out of it.

Codes and one sort, by numpy: a million rows take 0.6 s of CPU. A group-by of pandas or pyarrow was no gain: sums of
floating point numbers depend on their order, so rows must be sorted before (which takes pyarrow 0.9 s), and importing
pandas alone takes longer than all of a report on a small store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from editors.core.errors import InputError
from evaluators.report.intervals import Array, Clusters, Codes, Statistic, each, harmonic_mean
from evaluators.scoring.measures import all_metrics

UNEDITED = "identity"
RUN = ("case_id", "seed", "order")  # what tells values of one metric, editor and setting apart
SCORE = "score.success"  # COUNTERFACT's S (Meng et al. 2022): the harmonic mean of these three
SCORED = ("reliability.success", "generality.success", "locality.success")


class Setting(NamedTuple):
    """Where editors can be compared: what they edited, and how many edits were on the model."""

    model: str
    dataset: str
    protocol: str
    edits: int


@dataclass(frozen=True)
class ReportRow:
    """What is found about one metric of one editor in one setting; a subclass adds the numbers."""

    editor: str
    model: str
    dataset: str
    protocol: str
    edits: int
    metric: str

    @property
    def sort_key(self) -> tuple[Any, ...]:
        """Sorts findings."""
        return self.model, self.dataset, self.protocol, self.edits, name_key(self.editor), name_key(self.metric)


def name_key(name: str) -> tuple[bool, int, str]:
    """Sorts editors (the unedited model first) and metrics (as the table of metrics has them)."""
    order = _order()
    return name != UNEDITED, order.get(name, len(order)), name


@cache
def _order() -> dict[str, int]:
    return {name: number for number, name in enumerate(all_metrics())}


@dataclass(frozen=True)
class Sample:
    """The values of one editor in one setting, sorted; metrics, runs, cases and subjects are codes that all samples
    share. A run is one case with one seed and order of edits."""

    editor: str
    setting: Setting
    values: Array
    metric: Codes
    run: Codes
    case: Codes
    subject: Codes

    def take(self, rows: Codes | NDArray[np.bool_]) -> Sample:
        return Sample(self.editor, self.setting, self.values[rows], self.metric[rows], self.run[rows],
                      self.case[rows], self.subject[rows])

    def clusters(self) -> Clusters:
        """By subject, a column for each of `metrics`."""
        return Clusters.of(self.values, _renumber(self.subject), _renumber(self.metric))

    @property
    def metrics(self) -> Codes:
        return np.unique(self.metric)

    def cases(self, metrics: Codes) -> int:
        """How many cases have a value of any of these."""
        return len(np.unique(self.case[np.isin(self.metric, metrics)]))


def samples(table: pa.Table) -> tuple[list[Sample], list[str]]:
    """The samples of rows with columns editor, `Setting`'s, metric, value, subject and those of `RUN` (of which only
    case_id must be there), and the metrics' names by code. The order of the rows makes no difference.

    Raises `InputError` where the rows of an editor in a setting are of several `settings`.
    """
    if not table.num_rows:
        return [], []
    (editor, editors), (metric, metrics), (subject, _), (case, _) = (
        encode(table[name]) for name in ("editor", "metric", "subject", "case_id"))
    settings = [encode(table[name]) for name in Setting._fields]
    run = combine([encode(table[name]) for name in RUN if name in table.column_names])
    group = combine([(editor, editors), *settings])
    configuration, digests = encode(table["settings"]) if "settings" in table.column_names else (0 * group, [None])
    values = np.from_dlpack(table["value"].combine_chunks()).astype(np.float64)
    order = np.lexsort((values, run, metric, group))
    bounds = [*np.flatnonzero(np.diff(group[order], prepend=-1)).tolist(), len(order)]
    found = []
    for start, stop in pairwise(bounds):
        rows = order[start:stop]
        setting = Setting(*(names[code[rows[0]]] for code, names in settings))
        if len(mixed := np.unique(configuration[rows])) > 1:  # two campaigns may mean different things by one label
            raise InputError(f"the rows of '{editors[editor[rows[0]]]}' in {', '.join(map(str, setting))} edits are of "
                             f"{len(mixed)} configurations, told apart by the column 'settings' "
                             f"({', '.join(str(digests[code]) for code in mixed)}): sum up one of them, or the tasks "
                             "of one campaign")
        found.append(Sample(editors[editor[rows[0]]], setting, values[rows], metric[rows], run[rows], case[rows],
                            subject[rows]))
    return found, metrics


class Aggregate(NamedTuple):
    """A statistic worked out of some columns at once: `uses` names its results, and the columns each is made of."""

    uses: dict[str, list[int]]
    statistic: Statistic

    @property
    def columns(self) -> list[int]:
        return [column for columns in self.uses.values() for column in columns]


def aggregates(names: Sequence[str], counts: Array) -> Iterator[Aggregate]:
    """All that can be worked out of columns of these names: their means, and `SCORE` where its three are there.

    Means of metrics that the same clusters have are resampled together: that is faster, and changes no number.
    """
    alike: dict[bytes, dict[str, list[int]]] = defaultdict(dict)
    for column, name in enumerate(names):
        alike[(counts[:, column] > 0).tobytes()][name] = [column]
    for uses in alike.values():
        yield Aggregate(uses, each)
    if set(SCORED) <= set(names):
        yield Aggregate({SCORE: [names.index(name) for name in SCORED]}, harmonic_mean)


def encode(column: pa.ChunkedArray) -> tuple[Codes, list[Any]]:
    """Codes that count from 0 in the order of the values, and the values by code."""
    encoded = column.combine_chunks().dictionary_encode("encode")
    order = pc.sort_indices(encoded.dictionary)
    # Not `to_numpy`, which would import pandas.
    codes = np.argsort(np.from_dlpack(order))[np.from_dlpack(encoded.indices)]
    return codes, encoded.dictionary.take(order).to_pylist()


def combine(columns: Sequence[tuple[Codes, list[Any]]]) -> Codes:
    """One code for each combination of values."""
    combined = np.ravel_multi_index([code for code, _ in columns], [len(values) for _, values in columns])
    return np.unique(combined, return_inverse=True)[1]


def _renumber(codes: Codes) -> Codes:
    """The same codes, counted from 0 without gaps."""
    return np.unique(codes, return_inverse=True)[1]
