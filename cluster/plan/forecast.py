"""How long a plan will take: from what a store's results took, and from the table of costs where it has none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from cluster.plan.refs import ModelRef, digest
from cluster.plan.tasks import BaselineTask, ScoreTask, StatisticsTask, StreamTask, Task
from cluster.store.store import Store
from editors.core.errors import InputError


@dataclass(frozen=True)
class Forecast:
    """Seconds of every task that is not done yet; `measured` are those told by past results of the same kind."""

    seconds: Mapping[str, float]
    measured: frozenset[str]
    chain: float

    def hours(self, workers: int = 1) -> float:
        """Of the whole, at the best: the tasks shared out evenly, but no less than the longest chain of them."""
        return max(sum(self.seconds.values()) / workers, self.chain) / 3600


def forecast(tasks: Mapping[str, Task], done: Collection[str] = (), store: Store | None = None) -> Forecast:
    """What is left of a plan. Past results in the store, of the same model, method, protocol and measures, tell seconds
    per case, or per token of a text; where there are none, the table of costs does."""
    rates = _rates(store) if store else {}
    seconds, measured = dict[str, float](), set[str]()
    for task in tasks.values():
        if task.id in done:
            continue
        rate = rates.get(_group(task.kind, task.model.key, task.identity()))
        if rate is None:
            seconds[task.id] = task.cost
        else:
            seconds[task.id] = rate * _size(task)
            measured.add(task.id)
    return Forecast(seconds, frozenset(measured), _longest_chain(tasks, seconds))


def _size(task: Task) -> int:
    """In cases or tokens; what learns, or sums up, takes as long as it did whatever it is about."""
    match task:
        case BaselineTask() | StreamTask() | ScoreTask():
            return len(task.chunk.cases)
        case StatisticsTask():
            return task.shard.tokens(task.tokens)
    return 1


def _longest_chain(tasks: Mapping[str, Task], seconds: Mapping[str, float]) -> float:
    ends: dict[str, float] = {}
    for task in TopologicalSorter({task.id: task.needs for task in tasks.values()}).static_order():
        ends[task] = seconds.get(task, 0.0) + max((ends[need] for need in tasks[task].needs), default=0.0)
    return max(ends.values(), default=0.0)


def _rates(store: Store) -> dict[str, float]:
    """Seconds per case, token or task, by what was done."""
    try:
        keys = {task.key for record in store.campaigns() for task in record.tasks}
    except InputError:  # of a campaign that cannot be read; running it writes it anew
        return {}
    spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for group, seconds, size in store.provenances(keys, _spent):
        spent[group][0] += seconds
        spent[group][1] += size
    return {group: seconds / size for group, (seconds, size) in spent.items() if seconds and size}


def _spent(about: Mapping[str, Any]) -> tuple[str, float, int]:
    """What a result's provenance tells: what was done, in how many seconds, for how many cases or tokens."""
    model = about["model"]
    key = ModelRef(model["path"], model["digest"], model["dtype"], threads=model.get("threads", 1)).key
    group = _group(about["kind"], key, about["identity"])
    parts = ["seconds", "seconds_score"]
    if about["kind"] == "score" and about["edits"]:
        parts.append("seconds_edit")  # else a stream made them
    return group, sum(about.get(part, 0.0) for part in parts), about.get("cases", about.get("tokens", 1))


def _group(kind: str, model: str, identity: Mapping[str, Any]) -> str:
    return digest([kind, model, identity.get("editor"), identity.get("protocol", {}).get("name"),
                   identity.get("measures"), identity.get("layers")])
