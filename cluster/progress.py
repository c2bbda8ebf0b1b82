"""How far a campaign is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cluster.plan.tasks import Task


@dataclass(frozen=True)
class Progress:
    """How far a campaign is: counts of tasks and edits, and of `cost`, which tells best how much time is left;
    `abandoned` where all that was left was given up, as there were no workers to do it."""

    tasks: int
    edits: int
    cost: float
    done: int = 0
    failed: int = 0
    edits_done: int = 0
    abandoned: bool = False
    cost_done: float = field(default=0.0, compare=False)  # a sum in the order that tasks were done in

    def with_done(self, task: Task, sign: int = 1) -> Progress:
        return replace(self, done=self.done + sign, edits_done=self.edits_done + sign * task.edits,
                       cost_done=self.cost_done + sign * task.cost)

    def with_failed(self) -> Progress:
        return replace(self, failed=self.failed + 1)

    @property
    def share(self) -> float:
        """How much of the cost is done; of a campaign that costs nothing, all."""
        return self.cost_done / self.cost if self.cost else 1.0
