"""What a campaign's state is told, and what it says should be done."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from evaluators.metering.account import Account


@dataclass(frozen=True)
class TaskNode:
    """A task as the scheduler sees it.

    `model` is what a worker has to load for it, `cost` is in any common unit. A worker that is at it for longer than
    `limit` seconds is taken to hang. Where memory does not suffice, it can be done in up to `pieces` parts. A
    `temporary` result is removed once all tasks that need it are done. One to be done `alone` gets a worker that has
    done nothing before, and does nothing after. It counts as of a `kind`.
    """

    id: str
    model: str = ""
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    limit: float = math.inf
    pieces: int = 1
    temporary: bool = False
    kind: str = "task"
    alone: bool = False

    @property
    def group(self) -> str:
        """What tasks share that a worker does better one after another: their model."""
        return f"{self.id} alone" if self.alone else self.model


# --- events


@dataclass(frozen=True)
class Tick:
    """It is `now`, in seconds of any clock."""

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

    It went `with_node` where its machine, or the way there, was lost, and was `refused` where it runs other code."""

    worker: int
    reason: str
    out_of_memory: bool = False
    with_node: bool = False
    refused: bool = False


@dataclass(frozen=True)
class TaskDone:
    """The task's result is in the store, and the worker's `account` says what that took."""

    worker: int
    task: str
    seconds: float = field(default=0.0, compare=False)
    account: Account = field(default=Account(), compare=False)


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
    """The task could not be done, because the result of `damaged`, which it needs, is missing or cannot be read."""

    worker: int
    task: str
    damaged: str
    error: str


# --- instructions


@dataclass(frozen=True)
class StartWorker:
    """Begin to start a worker; say `WorkerUp` or `WorkerLost` of it later."""

    worker: int


@dataclass(frozen=True)
class Retire:
    """End this worker, whatever it is doing. Nothing more is heard of it. `lost` says why where it counts as lost: it
    was at a task for too long, or never came up."""

    worker: int
    reason: str
    lost: Literal["timeout", "never_started"] | None = None


@dataclass(frozen=True)
class Assign:
    """Have the worker, which is at none, do the task, in `parts` one after another."""

    worker: int
    task: str
    parts: int = 1


@dataclass(frozen=True)
class Discard:
    """Remove the temporary result of a task: nothing needs it any more."""

    task: str


@dataclass(frozen=True)
class Reopen:
    """A task that was done, or not needed, is neither any more: put away what there is of its result."""

    task: str


@dataclass(frozen=True)
class GiveUp:
    """The task will not be done: keep the reason. The rest goes on."""

    task: str
    reason: str


TaskEvent = TaskDone | TaskFailed | OutOfMemory | ResultDamaged
WorkerEvent = WorkerUp | WorkerLost | TaskEvent
Event = Tick | Room | WorkerEvent
Instruction = StartWorker | Retire | Assign | Discard | Reopen | GiveUp
