"""What a campaign's state is told, and what it says should be done."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TaskNode:
    """A task as the scheduler sees it.

    `model` is what a worker has to load for it, `cost` is in any common unit. A worker that is at it for longer than
    `limit` seconds is taken to hang. Where memory does not suffice, it can be done in up to `pieces` parts. Once it is
    done, the results of those of its needs that it `absorbs` are gone.
    """

    id: str
    model: str = ""
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    limit: float = math.inf
    pieces: int = 1
    absorbs: tuple[str, ...] = ()


# --- events


@dataclass(frozen=True)
class Tick:
    """`now` is in seconds, of any clock."""

    now: float


@dataclass(frozen=True)
class Room:
    """There is room for so many workers in all."""

    workers: int


@dataclass(frozen=True)
class WorkerUp:
    """A worker that was asked for is ready."""

    worker: int


@dataclass(frozen=True)
class WorkerLost:
    """A worker died, was cut off, or never started. What it was doing may or may not have been done.

    It went `with_node` where its machine, or the way there, was lost."""

    worker: int
    reason: str
    out_of_memory: bool = False
    with_node: bool = False


@dataclass(frozen=True)
class TaskDone:
    worker: int
    task: str
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class TaskFailed:
    """The task itself raised; the worker is fine."""

    worker: int
    task: str
    error: str


@dataclass(frozen=True)
class OutOfMemory:
    """The task needs more memory than the worker has; the worker is fine."""

    worker: int
    task: str
    error: str


@dataclass(frozen=True)
class ResultDamaged:
    """The task could not be done, because the result of `damaged` cannot be read any more; it has been put away."""

    worker: int
    task: str
    damaged: str
    error: str


# --- instructions


@dataclass(frozen=True)
class StartWorker:
    worker: int


@dataclass(frozen=True)
class Retire:
    """End this worker, whatever it is doing. Nothing more is heard of it."""

    worker: int
    reason: str


@dataclass(frozen=True)
class Assign:
    """Have the worker, which is at none, do the task, in `parts` one after another."""

    worker: int
    task: str
    parts: int = 1


@dataclass(frozen=True)
class GiveUp:
    """Give the task up and keep the reason; the rest goes on."""

    task: str
    reason: str


WorkerEvent = WorkerUp | WorkerLost | TaskDone | TaskFailed | OutOfMemory | ResultDamaged
Event = Tick | Room | WorkerEvent
Instruction = StartWorker | Retire | Assign | GiveUp
