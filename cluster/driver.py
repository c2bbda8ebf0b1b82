"""Runs a plan: tells the campaign's state what happened, and carries out what it says."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from cluster.exporter.earlier import catching_up
from cluster.exporter.gauges import Gauges, WorkerMemory
from cluster.exporter.glance import glance
from cluster.exporter.snapshot import Snapshot
from cluster.exporter.tally import Tally
from cluster.log import log_event
from cluster.plan.planner import Plan
from cluster.plan.tasks import Task
from cluster.progress import Progress
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
    TaskFailed,
    Tick,
    WorkerEvent,
    WorkerLost,
)
from cluster.scheduler.graph import cull
from cluster.scheduler.state import CampaignState
from cluster.store.lease import Lease
from cluster.store.records import last_line
from cluster.store.store import Failure, Store
from cluster.store.timed import timing

PULSE = 1.0  # seconds between looks at the clock and the cluster
REPORTING = 5.0  # seconds between reports

__all__ = ["Exporter", "Pool", "Progress", "run_campaign"]


class Pool(Protocol):
    """Workers, wherever they run; each has a number."""

    @property
    def room(self) -> int:
        """How many workers there is room for at the moment."""

    @property
    def on_gpu(self) -> bool:
        """Whether a worker has a GPU."""

    def start(self, worker: int) -> None:
        """Begins to start a worker; `wait` says when it is up."""

    def retire(self, worker: int) -> None:
        """Ends a worker, whatever it is doing; nothing more is heard of it."""

    def assign(self, worker: int, task: Task, parts: int) -> None:
        """Begins a task on a worker that is up and at none."""

    def wait(self, seconds: float) -> Iterable[WorkerEvent]:
        """What has happened; blocks until something has, but not for longer than this."""

    def memory(self) -> Mapping[int, WorkerMemory]:
        """What workers use, as they told when last asked; does not wait for any."""


class Exporter(Protocol):
    """Shows a campaign to others, at an address if they have to come for it."""

    @property
    def address(self) -> str | None: ...

    @property
    def wanted(self) -> bool:
        """Whether anybody has asked."""

    def publish(self, snapshot: Snapshot) -> None:
        """Shows this from now on."""


def run_campaign(plan: Plan, store: Store, connect: Callable[[], AbstractContextManager[Pool]],
                 watch: Callable[[Progress], None] = lambda progress: None, exporter: Exporter | None = None, *,
                 clock: Callable[[], float] = time.monotonic) -> Progress:
    """Does whatever of the plan is not in the store yet; `connect` is called only if anything is missing.

    The `exporter` is shown how it stands whenever it wants that, and at the end. Tasks that are given up leave a
    failure in the store. Interrupted at any point, calling it again goes on from there. Raises `InputError` where
    another driver is at work on the store, `StoreError` where the store cannot be used any more.
    """
    tasks = plan.tasks.values()
    progress = Progress(len(tasks), sum(task.edits for task in tasks), sum(task.cost for task in tasks))
    tally, untimed = Tally(plan, clock), store
    store = untimed.timed(tally.store_took)
    with untimed.lease(plan.campaign.name) as lease:
        if partial := store.tidy():
            log_event("store-tidied", store=store.place, files=partial)
        record = plan.record(datetime.now(UTC))
        store.write_campaign(record)
        there = store.done(task.key for task in tasks)
        to_do, leftover = cull(tasks, there)
        for each in leftover:  # of a driver that died before it removed them
            store.remove(plan.tasks[each].key)
        settled = [task for task in tasks if task.id not in to_do]
        store.clear_failures(task.id for task in settled)
        for task in settled:
            progress = progress.with_done(task)
        log_event("campaign-start", campaign=plan.campaign.name, tasks=len(tasks), done=progress.done,
                  store=store.place)
        if to_do:
            with connect() as pool, catching_up(tally, untimed, settled):
                state = CampaignState([task.node(pool.on_gpu) for task in tasks], workers=pool.room,
                                      there=there - leftover, retries=plan.campaign.retries)
                gauges = Gauges(tally, record, store.place, progress)
                progress = _Run(plan, store, lease, pool, state, progress, watch, clock, tally, gauges, exporter,
                                store.failed()).go()
    log_event("campaign-end", campaign=plan.campaign.name, tasks=len(tasks), done=progress.done, failed=progress.failed)
    return progress


@dataclass
class _Run:
    """The loop between the pool and the state of one campaign, with what both touch: the store, the log, the lease."""

    plan: Plan
    store: Store
    lease: Lease
    pool: Pool
    state: CampaignState
    progress: Progress
    watch: Callable[[Progress], None]
    clock: Callable[[], float]
    tally: Tally
    gauges: Gauges
    exporter: Exporter | None
    #: Tasks whose failure in an earlier run the store still has, of this campaign or others.
    failed_before: Collection[str]
    #: When it last looked at the clock and the cluster, and when it last reported.
    last_pulse: float = float("-inf")
    last_report: float = float("-inf")
    #: Whether something went wrong since the store was last tried.
    store_in_doubt: bool = False

    def go(self) -> Progress:
        self._carry_out(self.state.start())
        self.watch(self.progress)
        while not self.state.finished:
            for event in (*self.pool.wait(PULSE), *self._time()):
                self._happened(event)
                self.watch(self.progress)
            if self.exporter is not None and self.exporter.wanted:
                self._show()
        self._show()
        return replace(self.progress, abandoned=self.state.abandoned)

    def _time(self) -> Iterator[Event]:
        """Every second: how late it is, and how much room there is."""
        now = self.clock()
        if 0 <= now - self.last_pulse < PULSE:
            return
        self.last_pulse = now
        if self.store_in_doubt:
            self.store.probe()  # when it fails, neither a worker nor a task is to blame: the campaign ends here
            self.store_in_doubt = False
        self.tally.count_told()
        if not 0 <= now - self.last_report < REPORTING:
            self.last_report = now
            with timing("lease", self.tally.store_took):
                self.lease.renew(self._report())
        yield Tick(now)
        yield Room(self.pool.room)

    def _show(self) -> None:
        if self.exporter is not None:
            self.tally.count_told()
            self.exporter.publish(self.gauges.snapshot(self.state, self.progress, self.pool.memory()))

    def _report(self) -> dict[str, Any]:
        """What `editfleet status` and `watch` tell of a campaign that is being run."""
        tasks = self.plan.tasks
        titles = {worker: tasks[task].title for worker, (task, _) in self.tally.at.items()}
        return glance(self.tally, self.gauges, self.state, self.progress, titles,
                      self.exporter.address if self.exporter else None).model_dump(mode="json")

    def _happened(self, event: Event) -> None:
        match event:
            case TaskDone(worker, task, seconds):
                log_event("task-done", task=task, worker=worker, seconds=seconds, title=self._title(task))
                if task in self.failed_before:
                    self.store.clear_failure(task)
                self.progress = self.progress.with_done(self.plan.tasks[task])
            case TaskFailed(worker, task, error):
                self._trouble("task-failed", worker, task, error)
            case OutOfMemory(worker, task, error):
                self._trouble("out-of-memory", worker, task, error)
            case ResultDamaged(worker, task, damaged, error):
                self._trouble("result-damaged", worker, task, error, damaged)
            case WorkerLost(worker, reason):
                self._trouble("worker-lost", worker, None, reason)
        instructions = self.state.handle(event)
        self.tally.handled(event, instructions)
        self._carry_out(instructions)

    def _trouble(self, event: str, worker: int, task: str | None, reason: str, damaged: str | None = None) -> None:
        self.store_in_doubt = True
        log_event(event, level=logging.WARNING, task=task, worker=worker, damaged=damaged, reason=last_line(reason),
                  title=task and self._title(task))

    def _carry_out(self, instructions: Iterable[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case StartWorker(worker):
                    log_event("worker-start", worker=worker)
                    self.pool.start(worker)
                case Retire(worker, reason):
                    log_event("worker-retire", worker=worker, reason=reason)
                    self.pool.retire(worker)
                case Assign(worker, task, parts):
                    log_event("task-start", task=task, worker=worker, parts=parts if parts > 1 else None,
                              title=self._title(task))
                    self.pool.assign(worker, self.plan.tasks[task], parts)
                case Discard(task):
                    self.store.remove(self.plan.tasks[task].key)
                case Reopen(task):
                    log_event("task-reopened", task=task, title=self._title(task))
                    self.store.quarantine(self.plan.tasks[task].key)
                    self.progress = self.progress.with_done(self.plan.tasks[task], -1)
                case GiveUp(task, reason):
                    failure = Failure(task=task, title=self._title(task), reason=reason)
                    log_event("task-given-up", level=logging.ERROR, task=task, reason=failure.summary,
                              title=failure.title)
                    self.store.write_failure(failure)
                    self.progress = self.progress.with_failed()

    def _title(self, task: str) -> str:
        return self.plan.tasks[task].title
