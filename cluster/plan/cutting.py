"""How large tasks are cut: of about a minute by the table of costs, unless the campaign says how many cases it wants.

A size depends on the model, the method and the campaign alone, never on a machine or on what was measured: ids of tasks
change with it. What a campaign was first planned with is kept with its plan in the store, under a name that does not
depend on the table; a later table cuts only what no plan in that store has cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cluster.plan import costs
from cluster.plan.tasks import EditorRef, ModelRef, digest
from cluster.store.store import CampaignRecord
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
