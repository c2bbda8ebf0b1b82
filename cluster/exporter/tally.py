"""Counts what happens in a campaign, for those who watch it. Decides nothing, and knows no Ray and no Prometheus."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import product
from typing import Literal, NamedTuple

from cluster.exporter.declared import (
    EDITS,
    MEANS,
    METRICS,
    MOST_NAMES,
    OTHER,
    VALUES,
    FailureReason,
    LossReason,
    Retry,
)
from cluster.exporter.snapshot import Histogram, LabelValues
from cluster.plan.labels import Labels
from cluster.plan.planner import Plan
from cluster.scheduler.events import (
    Assign,
    Event,
    GiveUp,
    Instruction,
    OutOfMemory,
    ResultDamaged,
    Retire,
    TaskDone,
    TaskFailed,
    WorkerLost,
    WorkerUp,
)
from cluster.store.timed import Operation
from editors.core.printable import CELL, printable
from evaluators.metering.spent import Memory, Phase

Counted = Literal["edits", "edits_diverged", "probes", "phase_seconds", "task_failures", "task_retries", "workers_lost",
                  "store_errors"]
COUNTED: tuple[Counted, ...] = ("edits", "edits_diverged", "probes", "phase_seconds", "task_failures", "task_retries",
                                "workers_lost", "store_errors")
#: Counters that are there before anything is counted, so that the first one shows as a rise.
FROM_THE_START: tuple[tuple[Counted, str], ...] = (
    ("task_retries", "reason"), ("workers_lost", "reason"), ("store_errors", "operation"))
BOUNDS = {metric.name: metric.buckets for metric in METRICS if metric.kind == "histogram"}
PEAKS = VALUES["phase_peak_memory_bytes", "phase"]
_LOST: dict[LossReason, Retry] = {"out_of_memory": "out_of_memory", "node": "node_lost"}  # else to its worker


class At(NamedTuple):
    """What a worker is at, and since when by the driver's clock."""

    task: str
    since: float


class Mean(NamedTuple):
    """As much of a metric's mean as was summed up so far."""

    total: float
    n: int


NO_MEAN = Mean(0.0, 0)


class Tally:
    """Is told all that a driver hears and does, by the driver's thread; what a store took, and what earlier runs have
    scored, by any. All names in it are bounded: those beyond a bound are one, OTHER."""

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        campaign = plan.campaign
        self._plan, self._clock = plan, clock
        self._models = _bounded(spec.name for spec in campaign.models)
        self._datasets = _bounded(spec.name for spec in campaign.datasets)
        self._editors = _bounded(spec.name for spec in campaign.editors)
        self.began = self.last_task_end = time.time()
        #: When the first task was handed out, by the driver's clock.
        self.at_work_since: float | None = None
        #: What every worker is at that is at a task.
        self.at: dict[int, At] = {}
        self.busy_seconds = 0.0
        self._busy_until = clock()
        self.counters: dict[Counted, defaultdict[LabelValues, float]] = {name: defaultdict(float) for name in COUNTED}
        for name, label in FROM_THE_START:
            self.counters[name].update({(value,): 0.0 for value in VALUES[name, label]})
        #: The kinds of tasks that there are.
        self.kinds = list(dict.fromkeys(task.kind for task in plan.tasks.values()))
        reasons = VALUES["task_failures", "reason"]
        self.counters["task_failures"].update(dict.fromkeys(product(self.kinds, reasons), 0.0))
        self.histograms: dict[str, dict[LabelValues, Histogram]] = {name: {} for name in BOUNDS}
        #: The most memory by model, editor, phase and which memory.
        self.peaks: dict[LabelValues, int] = {}
        #: By model, data set, protocol, edits, editor and metric; and these, those whose mean changed last come last.
        self.means: dict[LabelValues, Mean] = {}
        self.newest: dict[LabelValues, None] = {}
        self._up = set[int]()
        #: Labels of tasks, and what is shown in their place.
        self._known: dict[Labels, Labels] = {}
        #: What other threads have told, and nobody has counted yet.
        self._took = deque[tuple[Operation, float, bool]]()
        self._earlier = deque[tuple[str, Mapping[str, tuple[float, int]]]]()

    # --- what other threads tell

    def store_took(self, operation: Operation, seconds: float, failed: bool) -> None:
        self._took.append((operation, seconds, failed))

    def scored_before(self, task: str, scored: Mapping[str, tuple[float, int]]) -> None:
        """Of a task that was done before this driver began."""
        self._earlier.append((task, scored))

    def count_told(self) -> None:
        """Counts what other threads have told, and how long workers have been busy."""
        while self._took:
            operation, seconds, failed = self._took.popleft()
            self._add("store_seconds", (operation,), seconds)
            self.counters["store_errors"][operation,] += failed
        while self._earlier:
            task, scored = self._earlier.popleft()
            self._scored(self._labels(task), scored)
        self._time_passes()

    # --- what the driver tells

    def handled(self, event: Event, instructions: Collection[Instruction]) -> None:
        """The driver heard of an event, and is to carry out what the campaign's state says about it."""
        given_up = {each.task for each in instructions if isinstance(each, GiveUp)} if instructions else ()
        match event:
            case TaskDone(worker, task) if self._ends(worker, task):
                self._done(event)
            case TaskFailed(worker, task) if self._ends(worker, task):
                self._went_wrong(task, "raised", given_up)
            case OutOfMemory(worker, task) if self._ends(worker, task):
                self._went_wrong(task, "out_of_memory", given_up)
            case ResultDamaged(worker, task) if self._ends(worker, task):
                self._went_wrong(task, "damaged", given_up)
            case WorkerUp(worker):
                self._up.add(worker)
            case WorkerLost(worker):
                self._lost(worker, self._why(event), given_up)
        for instruction in instructions:
            match instruction:
                case Assign(worker, task):
                    self._time_passes()
                    self.at[worker] = At(task, self._busy_until)
                    if self.at_work_since is None:
                        self.at_work_since = self._busy_until
                case Retire(worker, _, reason) if reason is not None:
                    self._lost(worker, reason, given_up)
                case Retire(worker):
                    self._leaves(worker)
                case GiveUp(task):
                    self.counters["task_failures"][self._labels(task).kind, "set_aside"] += 1

    @property
    def at_work_for(self) -> float:
        """Seconds since the first task was handed out."""
        return 0.0 if self.at_work_since is None else self._busy_until - self.at_work_since

    def seconds(self) -> dict[int, float]:
        """For how long every worker has been at its task that is at one."""
        return {worker: self._busy_until - since for worker, (_, since) in self.at.items()}

    def _ends(self, worker: int, task: str) -> bool:
        """Whether a worker was at a task, which it is not any more."""
        if worker not in self.at or self.at[worker].task != task:
            return False  # nobody waits for it any more
        self._time_passes()
        del self.at[worker]
        return True

    def _leaves(self, worker: int) -> str | None:
        """A worker is gone; what it was at."""
        self._up.discard(worker)
        if worker not in self.at:
            return None
        self._time_passes()
        return self.at.pop(worker).task

    def _time_passes(self) -> None:
        now = self._clock()
        self.busy_seconds += len(self.at) * max(now - self._busy_until, 0.0)
        self._busy_until = now

    # --- trouble

    def _went_wrong(self, task: str, reason: Literal["raised", "out_of_memory", "damaged"],
                    given_up: Collection[str]) -> None:
        self._fails(task, reason)
        if task not in given_up:
            self.counters["task_retries"][reason,] += 1

    def _fails(self, task: str, reason: FailureReason) -> None:
        self.counters["task_failures"][self._labels(task).kind, reason] += 1

    def _why(self, event: WorkerLost) -> LossReason:
        if event.refused:
            return "refused"
        if event.with_node:
            return "node"
        if event.out_of_memory:
            return "out_of_memory"
        return "died" if event.worker in self._up else "never_started"

    def _lost(self, worker: int, reason: LossReason, given_up: Collection[str]) -> None:
        """A worker is lost, and the attempt at its task with it."""
        self.counters["workers_lost"][reason,] += 1
        task = self._leaves(worker)
        if task is None:
            return
        if reason in ("out_of_memory", "timeout"):
            self._fails(task, "timeout" if reason == "timeout" else "out_of_memory")
        if task not in given_up:
            self.counters["task_retries"][_LOST.get(reason, "worker_lost"),] += 1

    # --- what is done

    def _done(self, event: TaskDone) -> None:
        labels, account = self._labels(event.task), event.account
        of_editor = labels.model, labels.editor
        self.last_task_end = time.time()
        self._add("task_seconds", (labels.kind, labels.editor), event.seconds)
        if account.edits:
            self.counters["edits"][of_editor] += account.edits
            self.counters["edits_diverged"][of_editor] += account.diverged
            if "edit" in account.phases:
                self._add("edit_seconds", of_editor, account.phases["edit"].seconds / account.edits)
        if account.probes:
            self.counters["probes"][of_editor] += account.probes
        for phase, spent in account.phases.items():
            self.counters["phase_seconds"][(*of_editor, phase)] += spent.seconds
            if phase in PEAKS:
                self._peaked((*of_editor, phase), spent.memory)
        self._scored(labels, account.scored)

    def _peaked(self, of_phase: tuple[str, str, Phase], memory: Memory) -> None:
        for name in VALUES["phase_peak_memory_bytes", "memory"]:
            if (value := getattr(memory, name)) is not None:
                self.peaks[*of_phase, name] = max(self.peaks.get((*of_phase, name), 0), value)

    def _scored(self, labels: Labels, scored: Mapping[str, tuple[float, int]]) -> None:
        edits = str(labels.edits) if labels.edits in EDITS else OTHER
        for metric in MEANS:
            if metric in scored:
                total, n = scored[metric]
                key = labels.model, labels.dataset, labels.protocol, edits, labels.editor, metric
                before = self.means.get(key, NO_MEAN)
                self.means[key] = Mean(before.total + total, before.n + n)
                self.newest.pop(key, None)
                self.newest[key] = None

    def _add(self, histogram: str, labels: LabelValues, value: float) -> None:
        series = self.histograms[histogram]
        if labels not in series:
            series[labels] = Histogram(BOUNDS[histogram])
        series[labels].add(value)

    def _labels(self, task: str) -> Labels:
        """Of a task, each within its bounds."""
        if (found := self._plan.labels(task)) not in self._known:
            self._known[found] = self._within_bounds(found)
        return self._known[found]

    def _within_bounds(self, found: Labels) -> Labels:
        return found._replace(model=self._models.get(found.model, OTHER),
                              editor=self._editors.get(found.editor, OTHER) if found.editor else "",
                              dataset=self._datasets.get(found.dataset, OTHER) if found.dataset else "")


def _bounded(names: Iterable[str]) -> dict[str, str]:
    """The first of these names, as they are shown; all others are OTHER."""
    return {name: printable(name, CELL) for name in list(dict.fromkeys(names))[:MOST_NAMES]}
