"""What is shown of a campaign at one moment, and histograms as they grow."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

LabelValues = tuple[str, ...]


class Frozen(NamedTuple):
    """A histogram at one moment: how many values fell into each bucket, the last of which has no bound; and their sum.
    """

    counts: tuple[int, ...]
    total: float

    def bound_of(self, share: float, bounds: tuple[float, ...]) -> float:
        """The lowest bound that this share of the values does not exceed; infinity beyond the last."""
        wanted, seen = share * sum(self.counts), 0
        for bound, count in zip((*bounds, float("inf")), self.counts, strict=True):
            seen += count
            if seen >= wanted:
                return bound
        return float("inf")


class Histogram:
    """Counts values by upper bounds, each of which belongs to its bucket."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._total = bounds, [0] * (len(bounds) + 1), 0.0
        self._frozen: Frozen | None = None

    def add(self, value: float) -> None:
        self._frozen = None
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def frozen(self) -> Frozen:
        """As it is now; the same object until that changes."""
        if self._frozen is None:
            self._frozen = Frozen(tuple(self._counts), self._total)
        return self._frozen


@dataclass(frozen=True)
class Snapshot:
    """Every metric by its declared name: the values of gauges and counters, and the histograms, by their labels but for
    `campaign`. Nobody changes it: any thread may read it."""

    campaign: str
    values: Mapping[str, Mapping[LabelValues, float]]
    histograms: Mapping[str, Mapping[LabelValues, Frozen]]
