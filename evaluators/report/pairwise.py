"""Every editor against every other in a setting: paired differences, and p-values corrected for their number."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evaluators.report.compare import pair
from evaluators.report.intervals import Clusters, bootstrap_difference, holm, permutation_test
from evaluators.report.samples import UNEDITED, Sample, Setting, name_key, samples

MOST = 16  # editors of a setting that are all compared: of more, each is compared with the unedited model alone
TOGETHER = 128  # comparisons whose resamples are made at once


class Pair(NamedTuple):
    """`editor` less `versus` in one metric, over the n cases that both have; `adjusted` is p after Holm's correction
    for all pairs of the setting and metric."""

    setting: Setting
    metric: str
    editor: str
    versus: str
    difference: float
    low: float
    high: float
    n: int
    p: float
    adjusted: float = math.nan


class _Compared(NamedTuple):
    pair: Pair
    own: Clusters
    other: Clusters


def pairwise(table: pa.Table, metrics: Collection[str]) -> list[Pair]:
    """All pairs of editors of each setting, in these metrics. Numbers are those of `compare`, which works one pair out
    after another: here all that have as many subjects share their resamples, which takes a fraction of the time."""
    chosen = table.filter(pc.is_in(table["metric"], value_set=pa.array(sorted(metrics), pa.string())))
    found, names = samples(chosen)
    settings: dict[Setting, list[Sample]] = defaultdict(list)
    for sample in found:
        settings[sample.setting].append(sample)
    pairs = [each for setting in sorted(settings) for each in _of_setting(settings[setting], names)]
    return corrected(pairs)


def _of_setting(editors: list[Sample], names: Sequence[str]) -> Iterator[Pair]:
    editors.sort(key=lambda sample: name_key(sample.editor))
    chosen = [(first, second) for first, second in combinations(editors, 2)
              if len(editors) <= MOST or first.editor == UNEDITED]
    waiting: dict[int, list[_Compared]] = defaultdict(list)
    for versus, editor in chosen:
        for each in _columns(editor, versus, names):
            alike = waiting[len(each.own.sums)]
            alike.append(each)
            if len(alike) == TOGETHER:
                yield from _resampled(alike)
                alike.clear()
    for alike in waiting.values():
        if alike:
            yield from _resampled(alike)


def _columns(editor: Sample, versus: Sample, names: Sequence[str]) -> Iterator[_Compared]:
    """The sums of each metric by subject, of the cases that both have."""
    first, second, _ = pair(editor, versus)
    if not len(first.values):
        return
    own, other = first.clusters(), second.clusters()
    for column, code in enumerate(first.metrics):
        found = Pair(first.setting, names[code], editor.editor, versus.editor, math.nan, math.nan, math.nan,
                     first.cases(np.array([code])), math.nan)
        yield _Compared(found, own.pick([column]), other.pick([column]))


def _resampled(alike: Sequence[_Compared]) -> Iterator[Pair]:
    own, other = (Clusters(np.hstack([part.sums for part in side]), np.hstack([part.counts for part in side]))
                  for side in ([each.own for each in alike], [each.other for each in alike]))
    estimate, p = bootstrap_difference(own, other), permutation_test(own, other)
    for number, each in enumerate(alike):
        difference, low, high = (float(part[number]) for part in estimate)
        yield each.pair._replace(difference=difference, low=low, high=high, p=float(p[number]))


def corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with `adjusted` p-values, by Holm (1979) within each setting and metric. A p that is no number is in no
    family."""
    families: dict[tuple[Setting, str], list[int]] = defaultdict(list)
    for number, each in enumerate(pairs):
        if not math.isnan(each.p):
            families[each.setting, each.metric].append(number)
    found = list(pairs)
    for family in families.values():
        for number, p in zip(family, holm(np.array([pairs[number].p for number in family])), strict=True):
            found[number] = pairs[number]._replace(adjusted=float(p))
    return found
