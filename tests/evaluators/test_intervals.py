import math
import random

import numpy as np
import pytest

from evaluators import intervals
from evaluators.intervals import Interval, bootstrap


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
