"""How long a plan will take: from what a store's results took, and from the table of costs where it has none."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from cluster.plan.refs import digest
from cluster.plan.tasks import BaselineTask, ScoreTask, Task
from cluster.store.store import Damaged, Store
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
    """What is left of a plan. Past results of the same model, method, protocol and measures in the store tell seconds
    per case; nothing but baselines and scores says what it took."""
    rates = _rates(store) if store else {}
    seconds, measured = dict[str, float](), set[str]()
    for task in tasks.values():
        if task.id in done:
            continue
        rate = rates.get(_group(task.kind, task.model.key, task.identity()))
        if rate is not None and isinstance(task, BaselineTask | ScoreTask):
            seconds[task.id] = rate * len(task.chunk.cases)
            measured.add(task.id)
        else:
            seconds[task.id] = task.cost
    return Forecast(seconds, frozenset(measured), _longest_chain(tasks, seconds))


def _longest_chain(tasks: Mapping[str, Task], seconds: Mapping[str, float]) -> float:
    ends: dict[str, float] = {}
    for task in TopologicalSorter({task.id: task.needs for task in tasks.values()}).static_order():
        ends[task] = seconds.get(task, 0.0) + max((ends[need] for need in tasks[task].needs), default=0.0)
    return max(ends.values(), default=0.0)


def _rates(store: Store) -> dict[str, float]:
    """Seconds per case, by what was done."""
    spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for found in _results(store):
        model = found["model"]
        group = _group(found["kind"], f"{model['digest']}-{model['dtype']}", found["identity"])
        parts = ("seconds", "seconds_score", *(["seconds_edit"] if found["edits"] else []))  # else a stream made them
        spent[group][0] += sum(found.get(part, 0.0) for part in parts)
        spent[group][1] += found.get("cases", 0)
    return {group: seconds / cases for group, (seconds, cases) in spent.items() if cases}


def _results(store: Store) -> Iterator[dict[str, Any]]:
    """How every result of the store came about."""
    with contextlib.suppress(InputError):
        for key in {task.key for record in store.campaigns() for task in record.tasks if task.output != "artefacts"}:
            with contextlib.suppress(Damaged):
                yield store.provenance(key)


def _group(kind: str, model: str, identity: Mapping[str, Any]) -> str:
    return digest([kind, model, identity.get("editor"), identity.get("protocol", {}).get("name"),
                   identity.get("measures")])
