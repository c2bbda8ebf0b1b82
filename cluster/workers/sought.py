"""What tasks before a joint edit left in the store for it: the values of its cases."""

from __future__ import annotations

from torch import Tensor

from cluster.plan.tasks import ScoreTask
from cluster.store.store import Store
from editors.core.methods.sought import load_sought
from editors.core.requests import EditRequest


def sought(store: Store, task: ScoreTask) -> dict[EditRequest, Tensor]:
    """By request. Those of which nothing was found are not there: what is wrong with them shows where they are edited.
    """
    wanted = {case.id for case in task.chunk.cases}
    found = ((need.chunk.cases[number], value) for need in task.values
             for number, value in load_sought(store.local(need.key)).items())
    return {case.request(): value for case, value in found if case.id in wanted}


def seconds_sought(store: Store, task: ScoreTask) -> float:
    """What it took to find them: of each task before, the share of the cases that are this task's."""
    wanted, seconds = {case.id for case in task.chunk.cases}, 0.0
    for need in task.values:
        ids = [case.id for case in need.chunk.cases]
        seconds += store.noted(need.key, "seconds") * sum(id in wanted for id in ids) / len(ids)
    return seconds
