"""How large tasks are cut: of about a minute by the table of costs, unless the campaign says how many cases it wants.

A size depends on the model, the method and the campaign alone, never on a machine or on what was measured: ids of tasks
change with it. What a campaign was first planned with is kept with its plan in the store, under a name that does not
depend on the table; a later table cuts only what no plan in that store has cut.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cluster.plan import costs
from cluster.plan.refs import Chunk, EditorRef, ModelRef, digest
from cluster.store.store import CampaignRecord
from evaluators.audit import without_contradictions
from evaluators.cases import Case
from evaluators.datasets import Dataset
from evaluators.scoring.measures import Measures


def frozen_sizes(records: Iterable[CampaignRecord]) -> dict[str, int]:
    """The sizes in the campaigns of a store; of two for the same thing, the one planned first counts."""
    return {name: size for record in sorted(records, key=lambda record: record.started, reverse=True)
            for name, size in record.sizes.items()}


class Sizes:
    """Numbers of cases per task, and of shards. `chosen` are those that were asked for and not given."""

    def __init__(self, cases: int | None = None, frozen: Mapping[str, int] | None = None) -> None:
        self._cases, self._frozen = cases, frozen or {}
        self.chosen: dict[str, int] = {}

    def of_baseline(self, model: ModelRef, measures: Measures) -> int:
        """Cases whose questions one task asks the unedited model."""
        return self._of_cases(costs.baseline_seconds(model.shape, measures),
                              {"kind": "baseline", "model": model.key, "measures": measures.identity()})

    def of_scores(self, model: ModelRef, editor: EditorRef, protocol: str, count: int, measures: Measures) -> int:
        """Cases that one task scores; edits of a stream are made before, others by the task, `count` on a model."""
        seconds = costs.score_seconds(model.shape, editor.name, measures)
        if protocol != "sequential":
            seconds += costs.edit_seconds(model.shape, editor.name, editor.config)
            seconds += costs.patch_seconds(model.shape, measures) / count
        return self._of_cases(seconds, {"kind": "score", "model": model.key, "editor": editor.identity(),
                                        "protocol": protocol, "count": count, "measures": measures.identity()})

    def of_statistics(self, model: ModelRef, layers: Sequence[int], tokens: int) -> int:
        """Shards of a text."""
        return self._settled({"kind": "statistics", "model": model.key, "layers": list(layers), "tokens": tokens},
                             lambda: costs.shards(model.shape, layers, tokens))

    def _of_cases(self, seconds: float, what: Mapping[str, Any]) -> int:
        return self._cases or self._settled(what, lambda: costs.cases_per_task(seconds))

    def _settled(self, what: Mapping[str, Any], choose: Callable[[], int]) -> int:
        name = digest(what)
        if name not in self.chosen:
            self.chosen[name] = self._frozen.get(name) or choose()
        return self.chosen[name]


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
