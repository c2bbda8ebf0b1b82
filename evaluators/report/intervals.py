"""Confidence intervals by bootstrap and p-values by permutation, with cases that share a subject kept together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int64]
Statistic = Callable[[Array], Array]  # results [..., results] of means [..., columns]

BLOCK = 4_000_000  # random draws held in memory at once
ROUNDING = 1e-9  # relative to the values: differences that are closer count as equal


class Interval(NamedTuple):
    """The mean of n values and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float
    n: int


class Estimate(NamedTuple):
    """Results of a statistic and the bounds of their confidence intervals, each [results]."""

    value: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Clusters:
    """Sums and numbers of values [clusters, columns]; a column holds the values of one metric."""

    sums: Array
    counts: Array

    @staticmethod
    def of(values: Array, cluster: Codes, column: Codes) -> Clusters:
        """Codes count from 0. Every value is added in the order given, which decides the last bits."""
        shape = int(cluster.max()) + 1, int(column.max()) + 1
        cell, size = cluster * shape[1] + column, shape[0] * shape[1]
        sums, counts = (np.bincount(cell, weights, size).astype(np.float64) for weights in (values, None))
        return Clusters(sums.reshape(shape), counts.reshape(shape))

    @property
    def means(self) -> Array:
        means: Array = self.sums.sum(0) / self.counts.sum(0)
        return means

    def pick(self, columns: Sequence[int]) -> Clusters:
        """These columns, and the clusters that have a value in any of them."""
        rows = self.counts[:, columns].any(1)
        return Clusters(self.sums[rows][:, columns], self.counts[rows][:, columns])


def each(means: Array) -> Array:
    """The statistic that is the means themselves."""
    return means


@np.errstate(divide="ignore")
def harmonic_mean(means: Array) -> Array:
    """The harmonic mean of all columns [..., 1]; 0 where one of them is 0, or below it by rounding."""
    # H = k / (1/m_1 + ... + 1/m_k)
    harmonic: Array = means.shape[-1] / (1 / np.maximum(means, 0)).sum(-1, keepdims=True)
    return harmonic


def bootstrap(values: Sequence[float], clusters: Sequence[str], *, level: float = 0.95, resamples: int = 2000,
              seed: int = 0) -> Interval:
    """The percentile bootstrap interval of the mean of `values`, resampling whole clusters (Efron & Tibshirani 1993).

    The result does not depend on the order of the values. Raises `ValueError` where there are none.
    """
    if not len(values):
        raise ValueError("no values to take the mean of")
    array, code = np.asarray(values, np.float64), np.unique(np.asarray(clusters, str), return_inverse=True)[1]
    order = np.lexsort((array, code))
    data = Clusters.of(array[order], code[order], np.zeros_like(code))
    found = bootstrap_statistic(data, level=level, resamples=resamples, seed=seed)
    return Interval(found.value.item(), found.low.item(), found.high.item(), len(array))


@np.errstate(invalid="ignore", over="ignore")
def bootstrap_statistic(data: Clusters, statistic: Statistic = each, *, level: float = 0.95, resamples: int = 2000,
                        seed: int = 0) -> Estimate:
    """The percentile bootstrap of any statistic of the columns' means, which are resampled jointly (Efron & Tibshirani
    1993, chapter 13).

    Resamples in which a column has no value are left out. Infinite values make infinite bounds, and NaN
    makes NaN.
    """
    columns = np.hstack([data.sums, data.counts])
    # Resample b holds cluster c w_bc times: of column k, S_bk = sum_c w_bc S_ck and n_bk = sum_c w_bc n_ck.
    totals = np.concatenate([weights @ columns if np.isfinite(columns).all() else _weigh(weights, columns)
                             for weights in _resample(len(columns), resamples, seed)])
    sums, counts = np.hsplit(totals, 2)
    whole = counts.all(1)
    # theta_b = s(S_b / n_b); the interval is from the alpha/2 quantile of all theta_b to the 1 - alpha/2 quantile.
    ordered = np.sort(statistic(sums[whole] / counts[whole]), 0)
    value = statistic(data.means)
    low, high = (np.where(np.isnan(value), np.nan, _quantile(ordered, share))
                 for share in ((1 - level) / 2, (1 + level) / 2))
    return Estimate(value, low, high)


@np.errstate(invalid="ignore", over="ignore")
def bootstrap_difference(first: Clusters, second: Clusters, statistic: Statistic = each) -> Estimate:
    """The bootstrap of `statistic` of the first less that of the second, whose values are paired."""
    width = first.sums.shape[1]
    # Both are resampled by the same w_bc: theta_b = s(S_b / n_b of the first) - s(S_b / n_b of the second).
    both = Clusters(np.hstack([first.sums, second.sums]), np.hstack([first.counts, second.counts]))
    return bootstrap_statistic(both, lambda means: statistic(means[..., :width]) - statistic(means[..., width:]))


@np.errstate(invalid="ignore", over="ignore")
def permutation_test(first: Clusters, second: Clusters, statistic: Statistic = each, *, draws: int = 10_000,
                     seed: int = 0) -> Array:
    """Two-sided p-values [results] of `bootstrap_difference`'s differences being 0.

    Under the null hypothesis it is chance which of both a cluster's values belong to. All ways to swap them are
    tried where there are no more than `draws`, else so many random ones, with Phipson & Smyth's (2010) +1. For means
    this is the sign-flip test. NaN where a difference is not finite.
    """
    gap, total, counts = first.sums - second.sums, (first.sums + second.sums).sum(0), 2 * first.counts.sum(0)
    observed = np.abs(statistic(first.means) - statistic(second.means))
    sizes = [statistic(np.abs(data.sums).sum(0) / data.counts.sum(0)) for data in (first, second)]
    least = observed - ROUNDING * (sizes[0] + sizes[1])
    exact = len(gap) < draws.bit_length()
    hits, tried = np.zeros(len(observed)), 0
    for signs in _signs(len(gap), None if exact else draws, seed):
        # With signs e_c = -1 where cluster c is swapped, and means over 2n values of a + b = total, a - b = gap:
        # T(e) = s((total + sum_c e_c gap_c) / 2n) - s((total - sum_c e_c gap_c) / 2n), and T(1, ..., 1) is observed.
        swapped = signs @ gap
        differences = statistic((total + swapped) / counts) - statistic((total - swapped) / counts)
        hits += (np.abs(differences) >= least).sum(0)
        tried += len(signs)
    # p = share of |T(e)| >= |T| among all e; with random e the observed one is counted in, too.
    p = hits / tried if exact else (hits + 1) / (tried + 1)
    return np.where(np.isfinite(observed), p, np.nan)


def holm(p: Array) -> Array:
    """P-values [m] corrected for their number m (Holm 1979): what is below alpha afterwards may be called a finding,
    with a chance of alpha at most that any of them is none. NaN stays NaN, and counts for nothing."""
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[:np.count_nonzero(~np.isnan(p))]  # NaN is sorted last
    # p'_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), with p_(1) <= ... <= p_(m).
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(order), 0, -1) * p[order]))
    return adjusted


def _resample(clusters: int, resamples: int, seed: int) -> Iterable[Array]:
    """How often each resample holds each cluster, [resamples, clusters] in blocks."""
    return _one_block(clusters, resamples, seed) if clusters * resamples <= BLOCK else _draw(clusters, resamples, seed)


@lru_cache(maxsize=2)
def _one_block(clusters: int, resamples: int, seed: int) -> tuple[Array, ...]:
    """Kept, as the editors of a table mostly share their subjects, and drawing takes longer than summing."""
    return tuple(_draw(clusters, resamples, seed))


def _draw(clusters: int, resamples: int, seed: int) -> Iterator[Array]:
    rng = np.random.default_rng(seed)
    for size in _blocks(resamples, clusters):
        drawn = rng.integers(clusters, size=(size, clusters)) + clusters * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def _signs(clusters: int, draws: int | None, seed: int) -> Iterator[Array]:
    """-1 where a cluster is swapped, else 1 [ways, clusters] in blocks: of all ways there are, or of random ones."""
    if draws is None:
        yield 1 - 2 * (np.arange(2**clusters)[:, None] >> np.arange(clusters) & 1).astype(np.float64)
        return
    rng = np.random.default_rng(seed)
    for size in _blocks(draws, clusters):
        yield 1 - 2 * rng.integers(2, size=(size, clusters), dtype=np.int8).astype(np.float64)


def _blocks(rows: int, width: int) -> Iterator[int]:
    block = max(1, BLOCK // width)
    for start in range(0, rows, block):
        yield min(block, rows - start)


def _weigh(weights: Array, columns: Array) -> Array:
    """`weights @ columns` where a weight of 0 leaves out even what is not finite."""
    finite = np.isfinite(columns)
    totals: Array = weights @ np.where(finite, columns, 0)
    for row in np.flatnonzero(~finite.all(1)):
        totals += np.where((weights[:, row, None] > 0) & ~finite[row], columns[row], 0)
    return totals


def _quantile(ordered: Array, share: float) -> Array:
    """Linear between neighbours in ordered values [n, results], as `np.quantile`, but infinite values may occur."""
    place = share * (len(ordered) - 1)
    below, above, weight = ordered[int(np.floor(place))], ordered[int(np.ceil(place))], place % 1
    between: Array = np.where(below == above, below, below * (1 - weight) + above * weight)
    return between
