"""Confidence intervals by bootstrap, with cases that share a subject kept together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLOCK = 4_000_000  # random draws held in memory at once


class Interval(NamedTuple):
    """The mean of n values and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap(values: Sequence[float], clusters: Sequence[str], *, level: float = 0.95, resamples: int = 2000,
              seed: int = 0) -> Interval:
    """The percentile bootstrap interval of the mean of `values`, resampling whole clusters (Efron & Tibshirani 1993).

    The result does not depend on the order of the values. Raises `ValueError` where there are none.
    """
    if not len(values):
        raise ValueError("no values to take the mean of")
    _, code = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    ordered = np.lexsort((np.asarray(values, dtype=np.float64), code))
    value, code = np.asarray(values, dtype=np.float64)[ordered], code[ordered]
    sums, counts = np.bincount(code, weights=value), np.bincount(code)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, block := max(1, BLOCK // len(sums))):
        drawn = rng.integers(len(sums), size=(min(block, resamples - start), len(sums)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value.mean()), float(low), float(high), len(value))
