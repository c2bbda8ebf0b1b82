"""Compares editors with one of them on the cases that both have: differences, their intervals and p-values."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from editors.core.errors import unknown
from evaluators.report.intervals import bootstrap_difference, permutation_test
from evaluators.report.samples import ReportRow, Sample, Setting, aggregates, samples


@dataclass(frozen=True)
class Comparison(ReportRow):
    """An editor's mean of one metric less that of editor `versus`, over n cases that both have; the bounds of the
    difference's 95 % confidence interval, clustered by subject; the p-value of there being none; and `p_holm`,
    corrected for those it is shown with, NaN where it is not (`evaluators.report.tables.corrected`)."""

    versus: str
    difference: float
    low: float
    high: float
    p: float
    n: int
    p_holm: float = math.nan


class Compared(NamedTuple):
    """Comparisons, sorted, and what was left out of them."""

    comparisons: list[Comparison]
    notes: list[str]


def compare(table: pa.Table, versus: str) -> Compared:
    """Compares every other editor with `versus`, in every setting and metric that both have.

    Values pair by case, seed and order of edits. Numbers do not depend on the order of the rows. Raises `InputError`
    where there is no editor `versus`.
    """
    found, metrics = samples(table)
    if not found:
        return Compared([], ["there are no rows to compare yet"])
    if versus not in (names := {sample.editor for sample in found}):
        raise unknown("editor", versus, names)
    settings: dict[Setting, dict[str, Sample]] = defaultdict(dict)
    for sample in found:
        settings[sample.setting][sample.editor] = sample
    comparisons: list[Comparison] = []
    notes = []
    for setting, editors in settings.items():
        where = ", ".join(f"{name} {value}" for name, value in setting._asdict().items())
        reference = editors.pop(versus, None)
        if reference is None:
            notes.append(f"no '{versus}' to compare with in {where}")
            continue
        for sample in editors.values():
            first, second, single = pair(sample, reference)
            if single:
                notes.append(f"left out in {where}, as only one of '{sample.editor}' and "
                             f"'{versus}' has them: {single} {'case' if single == 1 else 'cases'}")
            if len(first.values):
                comparisons += compare_samples(first, second, metrics)
    return Compared(sorted(comparisons, key=lambda row: row.sort_key), notes)


def pair(first: Sample, second: Sample) -> tuple[Sample, Sample, int]:
    """What both have, in the same order, and how many cases only one of them has in some metric that both have."""
    shared = np.intersect1d(first.metric, second.metric)
    first, second = (_one_value_each(sample.take(np.isin(sample.metric, shared))) for sample in (first, second))
    runs = 1 + max(sample.run.max(initial=0) for sample in (first, second))
    own, other = (sample.metric * runs + sample.run for sample in (first, second))
    _, left, right = np.intersect1d(own, other, assume_unique=True, return_indices=True)
    single = np.concatenate([np.delete(first.case, left), np.delete(second.case, right)])
    return first.take(left), second.take(right), len(np.unique(single))


def _one_value_each(sample: Sample) -> Sample:
    """The mean where a run has several values of a metric."""
    starts = np.flatnonzero((np.diff(sample.metric, prepend=-1) != 0) | (np.diff(sample.run, prepend=-1) != 0))
    if len(starts) == len(sample.values):
        return sample
    sums, counts = np.add.reduceat(sample.values, starts), np.diff(starts, append=len(sample.values))
    return replace(sample.take(starts), values=sums / counts)


def compare_samples(first: Sample, second: Sample, names: Sequence[str]) -> Iterator[Comparison]:
    """Every metric of two samples that `pair`; `names` are the metrics' by code."""
    metrics, own, other = first.metrics, first.clusters(), second.clusters()
    for aggregate in aggregates([names[code] for code in metrics], own.counts):
        both = own.pick(aggregate.columns), other.pick(aggregate.columns)
        estimate, p = bootstrap_difference(*both, aggregate.statistic), permutation_test(*both, aggregate.statistic)
        for number, (metric, columns) in enumerate(aggregate.uses.items()):
            difference, low, high = (float(part[number]) for part in estimate)
            yield Comparison(first.editor, *first.setting, metric, second.editor, difference, low, high,
                             float(p[number]), first.cases(metrics[columns]))
