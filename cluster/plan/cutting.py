"""How cases are cut into tasks: by the campaign's `chunk` alone, so that no id hangs on a machine or on a table."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from cluster.plan.refs import Chunk
from evaluators.audit import without_contradictions
from evaluators.cases import Skipped
from evaluators.datasets import Cases, Dataset


class CampaignCases:
    """A data set's cases as tasks take them: all of them, or those that may meet on one model, in an order.

    Chunks are made once, as the digest of their cases takes long.
    """

    def __init__(self, dataset: Dataset, *, contradictions: bool = False,
                 source: Mapping[str, Any] | None = None) -> None:
        self.dataset = dataset
        self.source = dataset.provenance if source is None else source
        self._allowed = contradictions
        self._ordered: dict[int | None, Cases] = {None: dataset.cases}
        self._chunks: dict[tuple[int | None, int, int], Chunk] = {}

    def kept(self, dataset: Dataset, source: Mapping[str, Any]) -> CampaignCases:
        """Other cases in the place of these; `source` tells where they come from."""
        return CampaignCases(dataset, contradictions=self._allowed, source=source)

    @property
    def contradicting(self) -> list[Skipped]:
        """Those that may not meet others, unless `contradictions` are allowed."""
        return self._consistent[1]

    @cached_property
    def _consistent(self) -> tuple[Sequence[int], list[Skipped]]:
        cases = self.dataset.cases
        return (cases.places, []) if self._allowed else without_contradictions(cases)

    def ordered(self, order: int | None) -> Cases:
        """All cases (None), or those without contradictions: in the data set's order (0), or shuffled by any other
        number."""
        if order not in self._ordered:
            places = array("I", self._consistent[0])
            if order:
                random.Random(f"order {order}").shuffle(places)
            self._ordered[order] = self.dataset.cases.at(places)
        return self._ordered[order]

    def count(self, order: int | None) -> int:
        return len(self.ordered(order))

    def chunk(self, order: int | None, start: int, stop: int) -> Chunk:
        """Cases `start` to `stop` of those in this order."""
        key = order, start, stop
        if key not in self._chunks:
            self._chunks[key] = Chunk(self.dataset.spec.name, start + 1, self.ordered(order)[start:stop],
                                      self.source)
        return self._chunks[key]

    def chunks(self, size: int) -> list[Chunk]:
        """All cases in pieces; the last may be short."""
        count = self.count(None)
        return [self.chunk(None, start, min(start + size, count)) for start in range(0, count, size)]
