"""Runs a plan: tells the campaign's state what happened, and carries out what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from cluster.plan import Plan
from cluster.state import Assign, CampaignState, Event, Instruction, SetAside, StartWorker, TaskDone
from cluster.store import Failure, Store
from cluster.work import Task


class Pool(Protocol):
    """Workers, wherever they run. `size` is how many there is room for."""

    @property
    def size(self) -> int: ...

    def start(self, worker: int) -> None:
        """Begins to start a worker; `wait` says when it is up."""

    def assign(self, worker: int, task: Task) -> None:
        """Begins a task on a worker that is up and idle."""

    def wait(self) -> list[Event]:
        """Blocks until something has happened."""


@dataclass(frozen=True)
class Progress:
    """How far a campaign is: counts of tasks and edits, and of `cost`, which tells best how much time is left."""

    tasks: int
    edits: int
    cost: float
    done: int = 0
    failed: int = 0
    edits_done: int = 0
    cost_done: float = field(default=0.0, compare=False)  # a sum in the order that tasks were done in

    def with_done(self, task: Task) -> Progress:
        return replace(self, done=self.done + 1, edits_done=self.edits_done + task.edits,
                       cost_done=self.cost_done + task.cost)

    def with_failed(self) -> Progress:
        return replace(self, failed=self.failed + 1)


def run_campaign(plan: Plan, store: Store, connect: Callable[[], AbstractContextManager[Pool]],
                 watch: Callable[[Progress], None] = lambda progress: None) -> Progress:
    """Does whatever of the plan is not in the store yet; `connect` is called only if anything is missing.

    Tasks set aside leave a failure in the store. Interrupted at any point, calling it again goes on from there.
    """
    store.write_campaign(plan.record(datetime.now(UTC)))
    tasks = plan.tasks.values()
    progress = Progress(len(tasks), sum(task.edits for task in tasks), sum(task.cost for task in tasks))
    done = store.done(task.key for task in tasks)
    for task in done:
        store.clear_failure(task)
        progress = progress.with_done(plan.tasks[task])
    if len(done) == len(tasks):
        return progress
    with connect() as pool:
        state = CampaignState([task.node() for task in tasks], workers=pool.size, done=done)
        return _Run(plan, store, pool, state, progress, watch).go()


@dataclass
class _Run:
    plan: Plan
    store: Store
    pool: Pool
    state: CampaignState
    progress: Progress
    watch: Callable[[Progress], None]

    def go(self) -> Progress:
        self._carry_out(self.state.start())
        self.watch(self.progress)
        while not self.state.finished:
            for event in self.pool.wait():
                instructions = self.state.handle(event)
                if isinstance(event, TaskDone):
                    self.store.clear_failure(event.task)
                    self.progress = self.progress.with_done(self.plan.tasks[event.task])
                self._carry_out(instructions)
                self.watch(self.progress)
        return self.progress

    def _carry_out(self, instructions: Iterable[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case StartWorker(worker):
                    self.pool.start(worker)
                case Assign(worker, task):
                    self.pool.assign(worker, self.plan.tasks[task])
                case SetAside(task, reason):
                    self.store.write_failure(Failure(task=task, title=self.plan.tasks[task].title, reason=reason))
                    self.progress = self.progress.with_failed()
