"""How long a plan will take: from what a store's results took, and from the table of costs where it has none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt

from cluster.plan.known import KnownTask
from cluster.plan.refs import ModelRef, digest
from cluster.plan.tasks import BaselineTask, ScoreTask, StatisticsTask, StreamTask, Task, ValuesTask
from cluster.store.store import Store


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
    """What is left of a plan, in which tasks come after those they need. Past results in the store, of the same model,
    method, protocol and measures, tell seconds per case, or per token of a text; where there are none, the table of
    costs does."""
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
    return Forecast(seconds, frozenset(measured), longest_chain(tasks.values(), seconds))


def _size(task: Task) -> int:
    """In cases or tokens; what learns, or sums up, takes as long as it did whatever it is about."""
    match task:
        case KnownTask() | BaselineTask() | ValuesTask() | StreamTask() | ScoreTask():
            return len(task.chunk.cases)
        case StatisticsTask():
            return task.shard.tokens(task.tokens)
    return 1


def longest_chain(tasks: Iterable[Task], seconds: Mapping[str, float]) -> float:
    ends: dict[str, float] = {}
    for task in tasks:
        ends[task.id] = seconds.get(task.id, 0.0) + max((ends[need] for need in task.needs), default=0.0)
    return max(ends.values(), default=0.0)


def _rates(store: Store) -> dict[str, float]:
    """Seconds per case, token or task, by what was done."""
    keys = {task.key for record in store.campaigns() for task in record.tasks}
    spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for group, seconds, size in store.provenances(keys, _spent):
        spent[group][0] += seconds
        spent[group][1] += size
    return {group: seconds / size for group, (seconds, size) in spent.items() if seconds and size}


class _Model(BaseModel):
    path: str
    digest: str
    dtype: str
    threads: int = 1
    fused: bool = False


class _Identity(BaseModel):
    model_config = ConfigDict(extra="allow")
    protocol: dict[str, Any] = {}


class _Spent(BaseModel):
    """What forecasts read of a result's provenance."""

    kind: str
    model: _Model
    identity: _Identity
    edits: int = 0
    cases: NonNegativeInt | None = None
    tokens: NonNegativeInt = 1
    seconds: NonNegativeFloat = 0.0
    seconds_score: NonNegativeFloat = 0.0
    seconds_edit: NonNegativeFloat = 0.0


def _spent(about: Mapping[str, Any]) -> tuple[str, float, int]:
    """What a result's provenance tells: what was done, in how many seconds, for how many cases or tokens. Raises
    `ValidationError` where it does not."""
    told = _Spent.model_validate(about)
    key = ModelRef(told.model.path, told.model.digest, told.model.dtype, threads=told.model.threads,
                   fused=told.model.fused).key
    group = _group(told.kind, key, told.identity.model_dump())
    edited = told.seconds_edit if told.kind == "score" and told.edits else 0.0  # else a stream made them
    return (group, told.seconds + told.seconds_score + edited,
            told.tokens if told.cases is None else told.cases)


def _group(kind: str, model: str, identity: Mapping[str, Any]) -> str:
    return digest([kind, model, identity.get("editor"), identity.get("protocol", {}).get("name"),
                   identity.get("measures"), identity.get("layers")])
