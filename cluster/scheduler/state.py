"""What a campaign does next, as pure code: events in, instructions out.

No Ray, no clock, no files: the driver reports what happened and carries out what it is told, so that every race can be
replayed in a test. The same events in the same order always give the same instructions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import assert_never

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from cluster.scheduler.events import (
    Assign,
    Event,
    GiveUp,
    Instruction,
    OutOfMemory,
    ResultDamaged,
    Retire,
    Room,
    StartWorker,
    TaskDone,
    TaskFailed,
    TaskNode,
    Tick,
    WorkerEvent,
    WorkerLost,
    WorkerUp,
)
from cluster.scheduler.graph import Status, TaskGraph
from cluster.scheduler.workers import WorkerTable

LONGEST_TICK = 30.0  # seconds; a longer one is a clock that jumped, or a driver that was stopped
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds before lost workers are replaced


class RetryPolicy(BaseModel):
    """How much trouble is borne before a task, or the campaign, is given up."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_task_errors: PositiveInt = 2
    """A task that has raised this many times is given up, with all that needs it. Its own errors mostly come again, so
    few tries are enough. Ours."""
    max_worker_losses: PositiveInt = 5
    """A task that has lost this many workers while their machines lived on (they crashed, or hung) is given up. Memory
    that does not suffice counts only where the task cannot be done in smaller parts. Ours."""
    max_node_losses: PositiveInt = 50
    """A task that has lost this many workers together with their machines, or the way there, is given up. It is hardly
    to blame, and a long one sees many where machines come and go. Ours."""
    max_damaged_results: PositiveInt = 5
    """A task whose result was found damaged this many times is not done again but given up, with all that needs it.
    Ours."""
    max_failed_starts: PositiveInt = 5
    """When more workers than this, or than twice as many as there is room for, are lost one after another before they
    get a task, no other is up and no task was done meanwhile, the campaign is given up. Ours."""
    no_worker_timeout: PositiveFloat = 900.0
    """When no worker was up for this many seconds, the campaign is given up; `.inf`: it waits for ever. It has to be
    longer than a node takes to come. Ours."""


class CampaignState:
    """Decides which worker runs which task. Changes only through `start` and `handle`.

    A task goes back to the graph when its worker is lost or it raises, and is set aside when that happens too often,
    with all that needs it. Where memory does not suffice it is done in twice as many parts. Lost workers are replaced,
    after a pause that doubles as long as nothing gets done, until in the end the campaign is given up. There are as
    many workers as there is room for, but no more than tasks. Events of workers that are no longer known are ignored.
    """

    def __init__(self, nodes: Iterable[TaskNode], *, workers: int, done: Collection[str] = (),
                 retries: RetryPolicy | None = None) -> None:
        self.graph = TaskGraph(nodes, done)
        self.workers = WorkerTable()
        self._retries = retries or RetryPolicy()
        self._room = workers
        self._now = 0.0
        self._last_tick: float | None = None
        self._manned = 0.0  # when a worker was last up
        #: Since a task was done or room was found: workers lost on their way or idle, and pauses made.
        self._fruitless = self._pauses = 0
        self._start_after = -math.inf
        self._raised: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._departed: Counter[str] = Counter()
        self._damaged: Counter[str] = Counter()
        self._parts: dict[str, int] = {}

    @property
    def finished(self) -> bool:
        return self.graph.open == 0

    def start(self) -> list[Instruction]:
        """The first instructions: which workers to start."""
        return list(self._scale())

    def handle(self, event: Event) -> list[Instruction]:
        """What to do about one event."""
        return [*self._react(event), *self._assign(), *self._scale()]

    def _react(self, event: Event) -> Iterator[Instruction]:
        match event:
            case Tick(now):
                yield from self._tick(now)
            case Room(workers):
                if workers > self._room:
                    self._hope()
                self._room = workers
            case _ if event.worker in self.workers.states:
                yield from self._hear(event)

    def _hear(self, event: WorkerEvent) -> Iterator[Instruction]:
        match event:
            case WorkerUp(number):
                self.workers.came_up(number)
                return
            case WorkerLost():
                yield from self._lose(event)
                return
        if event.task != self.workers.states[event.worker].task:
            return
        self.workers.free(event.worker)
        match event:
            case TaskDone(_, task):
                self._hope()
                self.graph.done(task)
            case TaskFailed(_, task, error):
                yield from self._failed(task, error)
            case OutOfMemory(_, task, error):
                yield from self._split(task, error)
            case ResultDamaged(_, task, damaged, error):
                yield from self._redo(task, damaged, error)
            case _:
                assert_never(event)

    # --- tasks

    def _again(self, task: str) -> Iterator[Instruction]:
        """A task goes back to the graph, unless something it needs was set aside in the meantime."""
        self.graph.again(task)
        for need in self.graph.nodes[task].needs:
            if self.graph.status[need] is Status.SET_ASIDE:
                yield from self._set_aside(task, f"needs task {need}, which was set aside")
                return

    def _failed(self, task: str, error: str) -> Iterator[Instruction]:
        self._raised[task] += 1
        if self._raised[task] < self._retries.max_task_errors:
            yield from self._again(task)
        else:
            yield from self._set_aside(task, error)

    def _can_split(self, task: str) -> bool:
        return self._parts.get(task, 1) < self.graph.nodes[task].pieces

    def _split(self, task: str, error: str) -> Iterator[Instruction]:
        """Has a task done in twice as many parts; where there are no smaller ones, it failed as others do."""
        if self._can_split(task):
            self._parts[task] = min(2 * self._parts.get(task, 1), self.graph.nodes[task].pieces)
            yield from self._again(task)
        else:
            yield from self._failed(task, error)

    def _redo(self, task: str, damaged: str, error: str) -> Iterator[Instruction]:
        """Has a damaged result made anew, and then the task that needs it done."""
        if damaged not in self.graph.nodes[task].needs:
            yield from self._failed(task, error)
            return
        if self.graph.status[damaged] is Status.DONE:
            _, *absorbed = self.lost_with(damaged)
            for each in (damaged, *absorbed):
                self.graph.undo(each)
            for each in absorbed:
                yield from self._again(each)
            self._damaged[damaged] += 1
            if self._damaged[damaged] < (limit := self._retries.max_damaged_results):
                yield from self._again(damaged)
            else:
                yield from self._set_aside(damaged, f"its result was damaged {limit} times; the last time: {error}")
        yield from self._again(task)

    def lost_with(self, damaged: str) -> tuple[str, ...]:
        """The tasks that have to be done again when the result of this one, which is done, is damaged."""
        return damaged, *(need for need in self.graph.nodes[damaged].absorbs
                          if self.graph.status[need] is Status.DONE)

    def _set_aside(self, task: str, reason: str) -> Iterator[GiveUp]:
        return (GiveUp(*each) for each in self.graph.set_aside(task, reason))

    # --- workers

    def _tick(self, now: float) -> Iterator[Instruction]:
        """Time passes; workers that hang are given up, and so is the campaign if there have been none for long."""
        if self._last_tick is not None:
            self._now += min(max(now - self._last_tick, 0.0), LONGEST_TICK)
        self._last_tick = now
        for number, worker in list(self.workers.states.items()):
            if worker.task and self._now - worker.since > (limit := self.graph.nodes[worker.task].limit):
                reason = f"took longer than {limit:.0f} s, the time limit of task {worker.task}"
                yield Retire(number, reason)
                yield from self._lose(WorkerLost(number, reason))
        if self.workers.up:
            self._manned = self._now
        elif self._now - self._manned > (limit := self._retries.no_worker_timeout):
            reason = (f"no worker came up within {limit:.0f} s; run the command again once the cluster "
                      "has room (`ray status` tells)")
            for number in list(self.workers.states):
                self.workers.remove(number)
                yield Retire(number, reason)
            yield from self._give_up(reason)

    def _hope(self) -> None:
        self._fruitless, self._pauses, self._start_after = 0, 0, -math.inf

    def _lose(self, event: WorkerLost) -> Iterator[Instruction]:
        """A worker is gone; the task that it was at is held to blame."""
        worker = self.workers.remove(event.worker)
        if self._now >= self._start_after:  # those lost during a pause are lost by the same cause
            self._start_after = self._now + min(FIRST_PAUSE * 2.0 ** self._pauses, LONGEST_PAUSE)
            self._pauses += 1
        if worker.task:
            yield from self._blame(worker.task, event)
            return
        self._fruitless += 1
        if self._fruitless > max(self._retries.max_failed_starts, 2 * self._room) and not self.workers.up:
            yield from self._give_up(f"no worker could be kept alive; the last one: {event.reason}")

    def _blame(self, task: str, event: WorkerLost) -> Iterator[Instruction]:
        if event.out_of_memory and self._can_split(task):
            yield from self._split(task, event.reason)
            return
        what, losses, limit = (("its node", self._departed, self._retries.max_node_losses) if event.with_node else
                               ("its worker", self._lost, self._retries.max_worker_losses))
        losses[task] += 1
        if losses[task] < limit:
            yield from self._again(task)
        else:
            yield from self._set_aside(task, f"lost {what} {limit} times; the last time: {event.reason}")

    def _give_up(self, reason: str) -> Iterator[GiveUp]:
        for task, status in self.graph.status.items():
            if status is Status.WAITING:
                yield from self._set_aside(task, reason)

    def _scale(self) -> Iterator[Instruction]:
        """As many workers as there is room for, but no more than tasks."""
        wanted = min(self._room, self.graph.open)
        while len(self.workers.states) < wanted and self._now >= self._start_after:
            yield StartWorker(self.workers.add())
        while len(self.workers.states) > max(self.graph.open, 1) and self.workers.idle:
            number = next(reversed(self.workers.idle))
            self.workers.remove(number)
            yield Retire(number, "there is nothing left to do for it")

    # --- who does what

    def _assign(self) -> Iterator[Instruction]:
        """Every idle worker gets a task, those first that need not load a model for it."""
        for number in sorted(self.workers.idle, key=self._loading):
            if (model := self._choose(number)) is None:
                break
            task = self.graph.take(model)
            self.workers.give(number, task, model, self._now)
            yield Assign(number, task, self._parts.get(task, 1))

    def _choose(self, number: int) -> str | None:
        """The model a worker holds, if there is something to do for it, else of those that fewest hold the one with the
        most urgent task."""
        held = self.workers.states[number].model
        choices = [(model != held, self.workers.holders[model], urgency, model)
                   for urgency, model in self.graph.models()]
        return min(choices)[-1] if choices else None

    def _loading(self, number: int) -> int:
        """What the next task costs a worker: 0, it goes on with its model; 1, it loads one; 2, in another's place."""
        model = self.workers.states[number].model
        if model is None:
            return 1
        return 0 if self.graph.has_for(model) else 2
