"""What a campaign does next, as pure code: events in, instructions out.

No Ray, no clock, no files: the driver reports what happened and carries out what it is told, so that every race can be
replayed in a test. The same events in the same order always give the same instructions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import assert_never

from pydantic import ConfigDict, PositiveFloat, PositiveInt

from cluster.scheduler.events import (
    Assign,
    Discard,
    Event,
    GiveUp,
    Instruction,
    OutOfMemory,
    Reopen,
    ResultDamaged,
    Retire,
    Room,
    StartWorker,
    TaskDone,
    TaskEvent,
    TaskFailed,
    TaskNode,
    Tick,
    WorkerLost,
    WorkerUp,
)
from cluster.scheduler.graph import Status, TaskGraph
from cluster.scheduler.workers import WorkerTable
from editors.core.settings import Settings

LONGEST_TICK = 30.0  # seconds; a longer one is a clock that jumped, or a driver that was stopped
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds before lost workers are replaced


class RetryPolicy(Settings):
    """How much trouble is borne before a task, or the campaign, is given up."""

    model_config = ConfigDict(allow_inf_nan=True)

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

    A task goes back to the graph when it raises or its worker is lost, and is given up when that happens too often,
    with all that needs it. Where memory does not suffice it is done in twice as many parts. Lost workers are replaced,
    after a pause that doubles as long as nothing gets done, until in the end the campaign is given up. There are as
    many workers as there is room for, but no more than open tasks.
    """

    def __init__(self, nodes: Iterable[TaskNode], *, workers: int, there: Collection[str] = (),
                 retries: RetryPolicy | None = None) -> None:
        self.graph = TaskGraph(nodes, there)
        self.workers = WorkerTable()
        self._retries = retries or RetryPolicy()
        #: Whether all that was left was given up, for want of workers.
        self.abandoned = False
        #: How many workers there is room for.
        self._room = workers
        #: Seconds that have passed, but for jumps of the clock.
        self._now = 0.0
        self._last_tick: float | None = None
        #: No worker hangs before: a thousand are looked at when that may be so, and not every second.
        self._first_limit = math.inf
        #: When a worker was last up.
        self._last_up = 0.0
        #: Workers lost before they got a task, and pauses made; since a task was done or room was found.
        self._failed_starts = self._pauses = 0
        #: No worker is started before.
        self._start_after = -math.inf
        #: What has happened to each task.
        self._errors: Counter[str] = Counter()
        self._worker_losses: Counter[str] = Counter()
        self._node_losses: Counter[str] = Counter()
        self._damages: Counter[str] = Counter()
        #: In how many parts a task is done, where that is more than one.
        self._parts: dict[str, int] = {}

    @property
    def finished(self) -> bool:
        return self.graph.open == 0

    @property
    def wanted(self) -> int:
        """How many workers there should be: as many as there is room for, but no more than open tasks."""
        return min(self._room, self.graph.open)

    @property
    def oldest_ready(self) -> float:
        """For how many seconds the task has been ready that has been so for longest; 0 where none is."""
        return self._now - next(iter(self.graph.ready.values()), self._now)

    def start(self) -> list[Instruction]:
        """The first instructions: which workers to start."""
        return list(self._scale())

    def handle(self, event: Event) -> list[Instruction]:
        """What to do about one event. Those of workers and tasks that are not at work any more are ignored."""
        return [*self._take_in(event), *self._assign(), *self._scale()]

    def _take_in(self, event: Event) -> Iterator[Instruction]:
        match event:
            case Tick(now):
                yield from self._tick(now)
            case Room(workers):
                if workers > self._room:
                    self._end_pause()
                self._room = workers
            case _ if event.worker not in self.workers.states:
                pass
            case WorkerUp(worker):
                self.workers.came_up(worker)
            case WorkerLost():
                yield from self._worker_lost(event)
            case _ if event.task == self.workers.states[event.worker].task:
                self.workers.free(event.worker)
                yield from self._task_ended(event)
                if self.graph.nodes[event.task].alone:
                    self.workers.remove(event.worker)
                    yield Retire(event.worker, "its task was to be done alone")

    def _task_ended(self, event: TaskEvent) -> Iterator[Instruction]:
        match event:
            case TaskDone(_, task):
                self._end_pause()
                yield from map(Discard, self.graph.done(task))
            case TaskFailed(_, task, error):
                yield from self._failed(task, error)
            case OutOfMemory(_, task, error):
                yield from self._split(task) if self._can_split(task) else self._failed(task, error)
            case ResultDamaged(_, task, damaged, error) if damaged in self.graph.nodes[task].needs:
                yield from self._damaged(damaged, error)
                yield from self._again(task)
            case ResultDamaged(_, task, _, error):
                yield from self._failed(task, error)
            case _:
                assert_never(event)

    # --- tasks

    def _again(self, task: str) -> Iterator[GiveUp]:
        """A task that was running goes back to the graph."""
        self.graph.again(task)
        yield from self._check_needs(task)

    def _check_needs(self, task: str) -> Iterator[GiveUp]:
        """Gives a waiting task up if something it needs was given up while it was not waiting."""
        lost = next((need for need in self.graph.nodes[task].needs if self.graph.status[need] is Status.GIVEN_UP), None)
        if lost is not None and self.graph.status[task] is Status.WAITING:
            yield from self._give_up(task, f"needs task {lost}, which was given up")

    def _failed(self, task: str, error: str) -> Iterator[GiveUp]:
        self._errors[task] += 1
        if self._errors[task] < self._retries.max_task_errors:
            yield from self._again(task)
        else:
            yield from self._give_up(task, error)

    def _can_split(self, task: str) -> bool:
        return self._parts.get(task, 1) < self.graph.nodes[task].pieces

    def _split(self, task: str) -> Iterator[GiveUp]:
        """Has a task that memory did not suffice for done in twice as many parts."""
        self._parts[task] = min(2 * self._parts.get(task, 1), self.graph.nodes[task].pieces)
        yield from self._again(task)

    def _damaged(self, task: str, error: str) -> Iterator[Instruction]:
        """A result is damaged: it is made again, with what that takes; once, where two tasks find the same damage."""
        if self.graph.status[task] is not Status.DONE:
            return
        self._damages[task] += 1
        self.graph.lose(task)
        yield Reopen(task)
        if self._damages[task] >= (limit := self._retries.max_damaged_results):
            yield from self._give_up(task, f"its result was damaged {limit} times; the last time: {error}")
            return
        reopened = self.graph.reopen_needs(task)
        yield from map(Reopen, reopened)
        for each in (task, *reopened):
            yield from self._check_needs(each)

    def _give_up(self, task: str, reason: str) -> Iterator[GiveUp]:
        return (GiveUp(*each) for each in self.graph.give_up(task, reason))

    # --- workers

    def _tick(self, now: float) -> Iterator[Instruction]:
        """Time passes; workers that hang are given up, and so is the campaign if there have been none for long."""
        if self._last_tick is not None:
            self._now += min(max(now - self._last_tick, 0.0), LONGEST_TICK)
        self._last_tick = now
        self.graph.now = self._now
        if self._now > self._first_limit:
            yield from self._end_hanging()
        if self.workers.up:
            self._last_up = self._now
        elif self._now - self._last_up > (limit := self._retries.no_worker_timeout):
            reason = (f"no worker came up within {limit:.0f} s; run the command again once the cluster has room (`ray "
                      "status` tells)")
            for number in list(self.workers.states):
                self.workers.remove(number)
                yield Retire(number, reason, "never_started")
            yield from self._give_up_all(reason)

    def _end_hanging(self) -> Iterator[Instruction]:
        self._first_limit = math.inf
        for number, worker in list(self.workers.states.items()):
            if worker.task and self._now - worker.since > (limit := self.graph.nodes[worker.task].limit):
                reason = f"took longer than {limit:.0f} s, the time limit of task {worker.task}"
                yield Retire(number, reason, "timeout")
                yield from self._worker_lost(WorkerLost(number, reason))
            elif worker.task:
                self._first_limit = min(self._first_limit, worker.since + limit)

    def _end_pause(self) -> None:
        """Things look up: lost workers are replaced at once again."""
        self._failed_starts, self._pauses, self._start_after = 0, 0, -math.inf

    def _worker_lost(self, event: WorkerLost) -> Iterator[Instruction]:
        """A worker is gone; the task that it was at is held to blame."""
        worker = self.workers.remove(event.worker)
        if self._now >= self._start_after:  # those lost during a pause are lost by the same cause
            self._start_after = self._now + min(FIRST_PAUSE * 2.0 ** self._pauses, LONGEST_PAUSE)
            self._pauses += 1
        if worker.task:
            yield from self._blame(worker.task, event)
            return
        self._failed_starts += 1
        if self._failed_starts > max(self._retries.max_failed_starts, 2 * self._room) and not self.workers.up:
            yield from self._give_up_all(f"no worker could be kept alive; the last one: {event.reason}")

    def _blame(self, task: str, event: WorkerLost) -> Iterator[GiveUp]:
        if event.out_of_memory and self._can_split(task):
            yield from self._split(task)
            return
        what, losses, limit = (("its node", self._node_losses, self._retries.max_node_losses) if event.with_node else
                               ("its worker", self._worker_losses, self._retries.max_worker_losses))
        losses[task] += 1
        if losses[task] < limit:
            yield from self._again(task)
        else:
            yield from self._give_up(task, f"lost {what} {limit} times; the last time: {event.reason}")

    def _give_up_all(self, reason: str) -> Iterator[GiveUp]:
        self.abandoned = True
        for task, status in self.graph.status.items():
            if status is Status.WAITING:
                yield from self._give_up(task, reason)

    def _scale(self) -> Iterator[Instruction]:
        """As many workers as are wanted; nobody is ended who is at a task."""
        while len(self.workers.states) < self.wanted and self._now >= self._start_after:
            yield StartWorker(self.workers.add())
        while len(self.workers.states) > max(self.graph.open, 1) and self.workers.idle:
            number = next(reversed(self.workers.idle))
            self.workers.remove(number)
            yield Retire(number, "there is nothing left to do for it")

    # --- who does what

    def _assign(self) -> Iterator[Instruction]:
        """Every idle worker gets a task, those first that need not load a model for it."""
        for number in sorted(self.workers.idle, key=self._loading):
            if (group := self._choose(number)) is not None:
                task = self.graph.take(group)
                self.workers.give(number, task, group, self._now)
                self._first_limit = min(self._first_limit, self._now + self.graph.nodes[task].limit)
                yield Assign(number, task, self._parts.get(task, 1))
            elif self.graph.groups():  # of tasks that it cannot be given, as it has done others
                self.workers.remove(number)
                yield Retire(number, "the tasks that are left need a worker that has done nothing else")
            else:
                break

    def _choose(self, number: int) -> str | None:
        """The group a worker is at, if there is something to do in it; else, of the groups that the fewest workers are
        at, the one with the most urgent task. Who has had a task is not given one that is to be done alone."""
        at = self.workers.states[number].group
        choices = [(group != at, self.workers.holders[group], urgency, group)
                   for urgency, group in self.graph.groups() if at is None or not self.graph.nodes[urgency[-1]].alone]
        return min(choices)[-1] if choices else None

    def _loading(self, number: int) -> int:
        """What the next task costs a worker: 0, it goes on with its model; 1, it loads one; 2, in another's place."""
        group = self.workers.states[number].group
        if group is None:
            return 1
        return 0 if self.graph.has_for(group) else 2
