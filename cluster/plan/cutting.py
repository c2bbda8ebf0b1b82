"""How cases are cut into tasks: by the campaign's `chunk` alone, so that no id hangs on a machine or on a table."""

from __future__ import annotations

import random
from collections.abc import Sequence

from cluster.plan.refs import Chunk
from evaluators.audit import without_contradictions
from evaluators.cases import Case
from evaluators.datasets import Dataset


class CampaignCases:
    """A data set's cases as tasks take them: all of them, or those that may meet on one model, in an order.

    `contradicting` are those that may not, unless `contradictions` are allowed. Chunks are made once, as the digest of
    their cases takes long.
    """

    def __init__(self, dataset: Dataset, *, contradictions: bool = False) -> None:
        self.dataset = dataset
        consistent, self.contradicting = without_contradictions(() if contradictions else dataset.cases)
        self._ordered: dict[int | None, Sequence[Case]] = {
            None: dataset.cases, 0: dataset.cases if contradictions else consistent}
        self._chunks: dict[tuple[int | None, int, int], Chunk] = {}

    def ordered(self, order: int | None) -> Sequence[Case]:
        """All cases (None), or those without contradictions: in the data set's order (0), or shuffled by any other
        number."""
        if order not in self._ordered:
            cases = list(self._ordered[0])
            random.Random(f"order {order}").shuffle(cases)
            self._ordered[order] = cases
        return self._ordered[order]

    def count(self, order: int | None) -> int:
        return len(self.ordered(order))

    def chunk(self, order: int | None, start: int, stop: int) -> Chunk:
        """Cases `start` to `stop` of those in this order."""
        key = order, start, stop
        if key not in self._chunks:
            self._chunks[key] = Chunk(self.dataset.spec.name, start + 1, tuple(self.ordered(order)[start:stop]),
                                      self.dataset.provenance)
        return self._chunks[key]

    def chunks(self, size: int) -> list[Chunk]:
        """All cases in pieces; the last may be short."""
        count = self.count(None)
        return [self.chunk(None, start, min(start + size, count)) for start in range(0, count, size)]
