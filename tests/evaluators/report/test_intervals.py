import itertools
import math
import random
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.report import intervals
from evaluators.report.intervals import (
    Clusters,
    Interval,
    bootstrap,
    bootstrap_difference,
    bootstrap_statistic,
    harmonic_mean,
    holm,
    permutation_test,
)


def clusters(values, names=None):
    """One column, a cluster for each value or by name."""
    code = np.unique(np.asarray(names if names is not None else range(len(values))), return_inverse=True)[1]
    return Clusters.of(np.asarray(values, float), code, np.zeros_like(code))


def test_one_cluster_has_no_spread():
    assert bootstrap([0.0, 1.0, 1.0, 0.0], ["a"] * 4) == Interval(0.5, 0.5, 0.5, 4)
    assert bootstrap([0.25], ["a"]) == Interval(0.25, 0.25, 0.25, 1)


def test_agrees_with_theory():
    values = np.random.default_rng(0).normal(3, 1, 400)
    interval = bootstrap(values, [str(number) for number in range(400)])
    half = 1.96 * values.std() / math.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_two_clusters_by_hand():
    """Resamples of two clusters have mean 0, 1/2 or 1, with probability 1/4, 1/2, 1/4."""
    assert bootstrap([0.0, 1.0], ["a", "b"])[:3] == (0.5, 0.0, 1.0)
    assert bootstrap([0.0, 1.0], ["a", "b"], level=0.4)[:3] == (0.5, 0.5, 0.5)


def test_clusters_of_different_sizes_by_hand():
    """Resamples of {1} and {0, 0, 0} have mean 0, 1/4 or 1, with probability 1/4, 1/2, 1/4."""
    values, clusters = [1.0, 0.0, 0.0, 0.0], ["a", "b", "b", "b"]
    assert bootstrap(values, clusters) == (0.25, 0.0, 1.0, 4)
    assert bootstrap(values, clusters, level=0.4) == (0.25, 0.25, 0.25, 4)


def test_clusters_widen_the_interval():
    values = [float(number % 10 < 5) for number in range(200)]
    alone = bootstrap(values, [str(number) for number in range(200)])
    clustered = bootstrap(values, [str(number % 10) for number in range(200)])
    assert clustered.high - clustered.low > 3 * (alone.high - alone.low)


def test_order_does_not_matter_to_the_last_bit():
    rng = random.Random(0)
    pairs = [(rng.random(), str(rng.randrange(20))) for _ in range(100)]
    expected = bootstrap(*zip(*pairs, strict=True))
    for _ in range(5):
        rng.shuffle(pairs)
        assert bootstrap(*zip(*pairs, strict=True)) == expected
    assert bootstrap(*zip(*pairs, strict=True), seed=1) != expected


def test_many_clusters_are_drawn_in_blocks(monkeypatch):
    values = [float(number % 3) for number in range(60)]
    names = [str(number) for number in range(60)]
    monkeypatch.setattr(intervals, "BLOCK", 1)
    blocked = bootstrap(values, names, resamples=200)
    monkeypatch.undo()
    whole = bootstrap(values, names, resamples=200)
    assert blocked.low == pytest.approx(whole.low, abs=0.1) and blocked.high == pytest.approx(whole.high, abs=0.1)


def test_no_values():
    with pytest.raises(ValueError, match="no values"):
        bootstrap([], [])


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """Clusters of 1 to 4 values that share an effect; the mean over all clusters there could be is 1/2."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        names = np.repeat(np.arange(60), rng.integers(1, 5, 60))
        values = rng.random(60)[names] > rng.random(len(names))  # a share of 1/2, alike within a cluster
        interval = bootstrap(values, names.astype(str), resamples=400, seed=seed)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


@pytest.mark.parametrize(("values", "mean", "low", "high"), [
    ([math.inf] * 3, math.inf, math.inf, math.inf),
    ([1.0] * 40 + [math.inf], math.inf, 1.0, math.inf),
    ([1.0] * 40 + [math.nan], math.nan, math.nan, math.nan),
    ([math.inf, -math.inf], math.nan, math.nan, math.nan)])
def test_values_that_are_not_finite_make_no_noise(values, mean, low, high):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interval = bootstrap(values, [str(number) for number in range(len(values))])
    np.testing.assert_equal(interval, (mean, low, high, len(values)))


def test_the_harmonic_mean_is_resampled_jointly():
    """Against a loop over the same draws of whole clusters, one of which lacks the third column."""
    sums, counts = np.random.default_rng(3).random((12, 3)), np.ones((12, 3))
    sums[0, 2] = counts[0, 2] = 0
    found = bootstrap_statistic(Clusters(sums, counts), harmonic_mean, resamples=500, seed=1)
    scores = [3 / sum(sum(counts[c, k] for c in drawn) / sum(sums[c, k] for c in drawn) for k in range(3))
              for drawn in [range(12), *np.random.default_rng(1).integers(12, size=(500, 12))]]
    expected = scores[0], *np.quantile(scores[1:], [0.025, 0.975])
    assert [part.item() for part in found] == pytest.approx(expected)


def test_the_harmonic_mean_of_a_zero_is_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert harmonic_mean(np.array([0.0, 1.0, 1.0])).item() == 0
        assert harmonic_mean(np.array([1e-17, -1e-17, 1.0])).item() == 0  # sums of swapped clusters are rounded
        found = bootstrap_statistic(Clusters(np.array([[0.0, 1, 1], [1, 0, 1]]), np.ones((2, 3))), harmonic_mean)
    assert found.low == 0 and found.value == pytest.approx(0.6) and found.high == pytest.approx(0.6)


def test_a_resample_that_lacks_a_column_is_left_out():
    """Two clusters with a column each: only resamples that hold both have a harmonic mean."""
    found = bootstrap_statistic(Clusters(np.diag([0.5, 1.0]), np.eye(2)), harmonic_mean)
    assert [part.item() for part in found] == pytest.approx([2 / 3] * 3)


def test_a_difference_is_that_of_the_paired_values():
    rng = np.random.default_rng(4)
    first, second, names = rng.random(50), rng.random(50), rng.integers(0, 20, 50).astype(str)
    found = bootstrap_difference(clusters(first, names), clusters(second, names))
    expected = bootstrap(first - second, names)
    assert [part.item() for part in found] == pytest.approx(expected[:3])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 1]), st.sampled_from([0, 0.1, 0.5, 1]),
                          st.sampled_from("abcdefg")), min_size=1, max_size=12))
def test_exact_p_values_count_all_ways_to_swap(rows):
    first, second, names = zip(*rows, strict=True)
    gaps = [sum(a - b for a, b, name in rows if name == each) for each in sorted(set(names))]
    sums = [abs(sum(map(math.prod, zip(signs, gaps, strict=True))))
            for signs in itertools.product((1, -1), repeat=len(gaps))]
    expected = sum(found > abs(sum(gaps)) - 1e-9 for found in sums) / len(sums)
    assert permutation_test(clusters(first, names), clusters(second, names)).item() == pytest.approx(expected)


def test_random_swaps_agree_with_all_of_them():
    rng = np.random.default_rng(5)
    first, second = clusters(rng.random(12) + 0.1), clusters(rng.random(12))
    exact, drawn = permutation_test(first, second), permutation_test(first, second, draws=4000)
    assert exact.item() * 4096 == pytest.approx(round(exact.item() * 4096))
    assert drawn.item() == pytest.approx(exact.item(), abs=0.02) and drawn.item() != exact.item()


def test_the_p_value_of_a_harmonic_mean_swaps_whole_clusters():
    rng = np.random.default_rng(6)
    first, second = rng.random((2, 6, 3))
    counts = np.ones((6, 3))

    def gap(chosen, rest):
        return abs(3 / sum(6 / chosen[:, k].sum() for k in range(3)) - 3 / sum(6 / rest[:, k].sum() for k in range(3)))

    reached = 0
    for swap in itertools.product((False, True), repeat=6):
        swapped = np.array(swap)[:, None]
        reached += gap(np.where(swapped, second, first), np.where(swapped, first, second)) > gap(first, second) - 1e-9
    found = permutation_test(Clusters(first, counts), Clusters(second, counts), harmonic_mean)
    assert found.item() == reached / 64


def test_p_values_are_uniform_where_there_is_no_difference():
    rng = np.random.default_rng(7)
    p = [permutation_test(clusters(rng.normal(size=30)), clusters(rng.normal(size=30)), draws=200, seed=seed).item()
         for seed in range(400)]
    for share in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(np.array(p) <= share) == pytest.approx(share, abs=0.06)


def test_p_is_small_where_there_is_one_and_never_zero():
    rng = np.random.default_rng(8)
    values = rng.normal(size=100)
    assert permutation_test(clusters(values + 1), clusters(values)).item() == pytest.approx(1 / 10_001)
    assert permutation_test(clusters(values), clusters(values)).item() == 1


def test_no_p_value_of_what_is_not_finite():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = clusters([math.inf, 1.0]), clusters([1.0, 1.0])
        assert math.isnan(permutation_test(first, second).item())
        assert bootstrap_difference(first, second).value == math.inf
        assert math.isnan(bootstrap_difference(first, first).value.item())


def test_holm_on_a_worked_example():
    """0.005, 0.01, 0.03 and 0.04 times 4, 3, 2 and 1 are 0.02, 0.03, 0.06 and 0.04, which may not be less than 0.06."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.5, 0.4, 0.7])) == pytest.approx([1, 1, 1]) and len(holm(np.array([]))) == 0


def test_holm_rejects_as_the_procedure_does_step_by_step():
    """At each level, hypotheses are rejected in the order of their p while p <= alpha / (m - number rejected)."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.choice([0.001, 0.004, 0.01, 0.02, 0.2, 0.9], size=7)
        corrected = holm(p)
        for alpha in (0.007, 0.05, 0.15):
            rejected = 0
            while rejected < len(p) and np.sort(p)[rejected] <= alpha / (len(p) - rejected):
                rejected += 1
            assert np.count_nonzero(corrected <= alpha * (1 + 1e-12)) == rejected
        assert (corrected >= p).all() and (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()


def test_holm_leaves_out_what_is_no_number():
    found = holm(np.array([np.nan, 0.01, np.nan, 0.04]))
    assert np.isnan(found[[0, 2]]).all() and found[[1, 3]] == pytest.approx([0.02, 0.04])
