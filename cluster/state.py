"""What a campaign does next, as pure code: events in, instructions out.

No Ray, no clock, no files: the driver reports what happened and carries out what it is told, so that every race can be
replayed in a test. The same events in the same order always give the same instructions.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from graphlib import TopologicalSorter
from math import inf


@dataclass(frozen=True)
class Node:
    """A task as the scheduler sees it. `model` is what a worker has to load for it; `cost` is in any common unit, and
    `limit` the seconds after which it hangs for sure."""

    id: str
    model: str = ""
    needs: tuple[str, ...] = ()
    cost: float = 1.0
    limit: float = inf


@dataclass(frozen=True)
class WorkerUp:
    """A worker that was asked for is ready."""

    worker: int


@dataclass(frozen=True)
class WorkerLost:
    """A worker died, was cut off, or never started. What it was doing may or may not have been done."""

    worker: int
    reason: str


@dataclass(frozen=True)
class TaskDone:
    worker: int
    task: str


@dataclass(frozen=True)
class TaskFailed:
    """The task itself raised; the worker is fine."""

    worker: int
    task: str
    error: str


@dataclass(frozen=True)
class StartWorker:
    worker: int


@dataclass(frozen=True)
class Assign:
    worker: int
    task: str


@dataclass(frozen=True)
class SetAside:
    """Give the task up and keep the reason; the rest goes on."""

    task: str
    reason: str


Event = WorkerUp | WorkerLost | TaskDone | TaskFailed
Instruction = StartWorker | Assign | SetAside


class Status(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    SET_ASIDE = "set aside"


@dataclass
class _Worker:
    up: bool = False
    task: str | None = None
    model: str | None = None


class CampaignState:
    """Decides which worker runs which task. Changes only through `start` and `handle`.

    A task goes back to the queue when its worker is lost (up to `losses` times in all) or when it raises (up to
    `attempts` times); then it is set aside, and all that needs it. A lost worker is replaced, unless workers are lost
    over and over without getting anything done. Events of workers that are no longer known are ignored.
    """

    def __init__(self, nodes: Iterable[Node], *, workers: int, done: Collection[str] = (), attempts: int = 2,
                 losses: int = 3) -> None:
        self.nodes = {node.id: node for node in nodes}
        self._attempts, self._losses = attempts, losses
        #: Exactly one status per task.
        self.status = {task: Status.DONE if task in done else Status.WAITING for task in self.nodes}
        #: Tasks that are waiting or running.
        self.open = sum(status is Status.WAITING for status in self.status.values())
        self._wanted = min(workers, self.open)
        self._workers: dict[int, _Worker] = {}
        self._next_worker = 0
        self._patience = self._idle_losses_allowed = max(3, 2 * self._wanted)
        self._raised: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._dependents: dict[str, list[str]] = defaultdict(list)
        for node in self.nodes.values():
            for need in node.needs:
                self._dependents[need].append(node.id)
        self._priority = self._critical_paths()
        self._position = {task: place for place, task in enumerate(self.nodes)}
        #: Needs not done yet, of every waiting task.
        self._missing = {node.id: sum(self.status[need] is not Status.DONE for need in node.needs)
                         for node in self.nodes.values()}
        #: Per model, a heap of exactly the waiting tasks that lack nothing.
        self._ready: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
        for task, status in self.status.items():
            if status is Status.WAITING and not self._missing[task]:
                self._make_ready(task)

    def _critical_paths(self) -> dict[str, float]:
        """Cost of each task and of the longest chain of tasks that waits for it."""
        order = list(TopologicalSorter({node.id: node.needs for node in self.nodes.values()}).static_order())
        if unknown := [task for task in order if task not in self.nodes]:
            raise ValueError(f"tasks are needed that do not exist: {', '.join(unknown)}")
        paths: dict[str, float] = {}
        for task in reversed(order):
            paths[task] = self.nodes[task].cost + max((paths[after] for after in self._dependents[task]), default=0.0)
        return paths

    @property
    def finished(self) -> bool:
        return self.open == 0

    def start(self) -> list[Instruction]:
        """The first instructions: which workers to start."""
        return [self._start_worker() for _ in range(self._wanted)]

    def handle(self, event: Event) -> list[Instruction]:
        """What to do about one event."""
        if event.worker not in self._workers:
            return []
        instructions: list[Instruction] = []
        match event:
            case WorkerUp(worker):
                self._workers[worker].up = True
            case TaskDone(worker, task):
                self._done(worker, task)
            case TaskFailed(worker, task, error):
                instructions += self._failed(worker, task, error)
            case WorkerLost(worker, reason):
                instructions += self._worker_lost(worker, reason)
        return [*instructions, *self._assign()]

    # --- what happened

    def _done(self, worker: int, task: str) -> None:
        if not self._release(worker, task):
            return
        self._patience = self._idle_losses_allowed
        self.status[task] = Status.DONE
        self.open -= 1
        for after in self._dependents[task]:
            self._missing[after] -= 1
            if not self._missing[after] and self.status[after] is Status.WAITING:
                self._make_ready(after)

    def _failed(self, worker: int, task: str, error: str) -> Iterator[Instruction]:
        if not self._release(worker, task):
            return
        self._raised[task] += 1
        if self._raised[task] < self._attempts:
            self._requeue(task)
        else:
            yield from self._set_aside(task, error)

    def _worker_lost(self, worker: int, reason: str) -> Iterator[Instruction]:
        task = self._workers.pop(worker).task
        if task is None:
            self._patience -= 1
        else:
            self._lost[task] += 1
            if self._lost[task] < self._losses:
                self._requeue(task)
            else:
                yield from self._set_aside(task, f"lost its worker {self._losses} times; the last time: {reason}")
        if self._patience > 0 and len(self._workers) < min(self._wanted, self.open):
            yield self._start_worker()
        elif not self._workers:
            for left in self.nodes:
                if self.status[left] is Status.WAITING:
                    yield from self._set_aside(left, f"no worker could be kept alive; the last one: {reason}")

    # --- what to do

    def _start_worker(self) -> StartWorker:
        worker = self._next_worker
        self._next_worker += 1
        self._workers[worker] = _Worker()
        return StartWorker(worker)

    def _assign(self) -> Iterator[Assign]:
        """Gives idle workers the most urgent task of the model they hold, else of the model that fewest hold."""
        idle = [number for number, worker in self._workers.items() if worker.up and worker.task is None]
        for number in sorted(idle, key=self._loading):
            worker = self._workers[number]
            holders = Counter(other.model for other in self._workers.values())
            choices = [(model != worker.model, holders[model], heap[0], model)
                       for model, heap in self._ready.items() if heap]
            if not choices:
                return
            model = min(choices)[-1]
            task = heapq.heappop(self._ready[model])[-1]
            worker.task, worker.model = task, model
            self.status[task] = Status.RUNNING
            yield Assign(number, task)

    def _loading(self, number: int) -> int:
        """What the next task costs a worker: 0, it goes on with its model; 1, it loads one; 2, in another's place."""
        model = self._workers[number].model
        if model is None:
            return 1
        return 0 if self._ready[model] else 2

    def _release(self, worker: int, task: str) -> bool:
        """Frees the worker; False for a report about a task that is not its own."""
        if self._workers[worker].task != task:
            return False
        self._workers[worker].task = None
        return True

    def _requeue(self, task: str) -> None:
        self.status[task] = Status.WAITING
        self._make_ready(task)

    def _make_ready(self, task: str) -> None:
        entry = (-self._priority[task], self._position[task], task)
        heapq.heappush(self._ready[self.nodes[task].model], entry)

    def _set_aside(self, task: str, reason: str) -> Iterator[SetAside]:
        """Gives up a task and, in turn, all that needs it."""
        queue = deque([(task, reason)])
        while queue:
            task, reason = queue.popleft()
            if self.status[task] in (Status.DONE, Status.SET_ASIDE):
                continue
            self.status[task] = Status.SET_ASIDE
            self.open -= 1
            yield SetAside(task, reason)
            queue.extend((after, f"needs task {task}, which was set aside") for after in self._dependents[task])
