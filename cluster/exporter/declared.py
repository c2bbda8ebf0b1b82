"""Every metric that a running campaign shows to Prometheus: its name, kind, labels and meaning.

Labels are few and bounded by what a campaign names: never a task's id, a subject, a host or an error's text. All
metrics have the label `campaign`, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from cluster.scheduler.graph import Stage
from cluster.store.timed import Operation
from evaluators.metering.spent import PHASES

PREFIX = "editfleet_"

WorkerState = Literal["wanted", "starting", "idle", "busy"]
Retry = Literal["raised", "out_of_memory", "damaged", "worker_lost", "node_lost"]
FailureReason = Literal["raised", "out_of_memory", "damaged", "timeout", "set_aside"]
LossReason = Literal["died", "out_of_memory", "node", "timeout", "refused", "never_started"]

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True)
class Declared:
    """A metric. `name` is without the prefix, and for a counter without the `_total` that Prometheus adds; `labels`
    are those besides `campaign`; `buckets` are a histogram's upper bounds but for infinity."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = field(default=(), repr=False)

    @property
    def exposed(self) -> str:
        """The name as expressions have it; of a histogram the stem of its three."""
        return f"{PREFIX}{self.name}_total" if self.kind == "counter" else PREFIX + self.name


def _gauge(name: str, meaning: str, *labels: str) -> Declared:
    return Declared(name, "gauge", meaning, labels)


def _counter(name: str, meaning: str, *labels: str) -> Declared:
    return Declared(name, "counter", meaning, labels)


def _histogram(name: str, meaning: str, *labels: str, buckets: tuple[float, ...]) -> Declared:
    return Declared(name, "histogram", meaning, labels, buckets)


METRICS = (
    _gauge("campaign_info", "What is being run, by what, and into which store; always 1.",
           "digest", "version", "ray", "torch", "store"),
    _gauge("campaign_start_timestamp_seconds", "When this driver began with the campaign."),
    _gauge("driver_heartbeat_timestamp_seconds", "When the driver last looked at the clock and its workers."),
    _gauge("last_task_end_timestamp_seconds", "When a task last ended well; before the first, when the driver began."),
    _gauge("progress_ratio", "Share of the campaign's work that is done, by what its tasks are reckoned to take."),
    _gauge("expected_remaining_seconds", "Time left at the speed so far; NaN while that is not known."),
    _gauge("ready_task_oldest_age_seconds", "For how long the task has waited that has been ready longest."),
    _gauge("tasks", "Tasks, by what they do and how far they are.", "kind", "state"),
    _gauge("edits_planned", "Edits of the whole campaign."),
    _gauge("edits_done", "Edits whose results are in the store, of earlier drivers too."),
    _counter("edits", "Edits made by this driver's workers.", "model", "editor"),
    _counter("edits_diverged", "Of these, those that are not finite.", "model", "editor"),
    _counter("probes", "Prompts on which edited models were scored.", "model", "editor"),
    _histogram("task_seconds", "How long tasks took that ended well.", "kind", "editor",
               buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)),
    _histogram("edit_seconds", "Seconds per edit, a mean over each task: as run, many at a time.", "model", "editor",
               buckets=(.01, .03, .1, .3, 1, 3, 10, 30, 100, 300)),
    _counter("phase_seconds", "Time of workers by what they did in it.", "model", "editor", "phase"),
    _gauge("phase_peak_memory_bytes", "The most memory that a task took in a phase.",
           "model", "editor", "phase", "memory"),
    _counter("task_failures", "Attempts at tasks that went wrong, and tasks set aside.", "kind", "reason"),
    _counter("task_retries", "Tasks that went back to be tried again.", "reason"),
    _gauge("workers", "Workers by what they are at; wanted: as many as there should be.", "state"),
    _counter("workers_lost", "Workers that were lost.", "reason"),
    _counter("worker_busy_seconds", "Time that workers were at tasks, summed over them."),
    _gauge("worker_memory_bytes", "Memory that a worker uses now; of many workers, the most that one does.",
           "worker", "memory"),
    _gauge("worker_memory_limit_bytes", "Memory that a worker can have: its device's, or its machine's.", "worker"),
    _histogram("store_seconds", "How long the driver's calls of the store took.", "operation",
               buckets=(.005, .02, .1, .5, 2, 10, 30)),
    _counter("store_errors", "The driver's calls of the store that failed.", "operation"),
    _gauge("metric_mean", "A metric's mean over the cases scored so far, over all seeds and orders.",
           "model", "dataset", "protocol", "edits", "editor", "metric"),
    _gauge("cases_scored", "Scores that this mean is over.",
           "model", "dataset", "protocol", "edits", "editor", "metric"),
)

#: What a label can be, where that does not hang on the campaign.
VALUES: dict[tuple[str, str], tuple[str, ...]] = {
    ("tasks", "state"): get_args(Stage),
    ("workers", "state"): get_args(WorkerState),
    ("task_retries", "reason"): get_args(Retry),
    ("task_failures", "reason"): get_args(FailureReason),
    ("workers_lost", "reason"): get_args(LossReason),
    ("store_seconds", "operation"): get_args(Operation),
    ("store_errors", "operation"): get_args(Operation),
    ("phase_seconds", "phase"): PHASES,
    ("phase_peak_memory_bytes", "phase"): ("train", "edit", "score"),
    ("phase_peak_memory_bytes", "memory"): ("allocated", "reserved", "device", "rss"),
    ("worker_memory_bytes", "memory"): ("device", "allocated", "rss"),
}
OTHER = "other"  # the label of what is beyond a bound
MOST_NAMES = 50  # of models, data sets and editors
MOST_WORKERS = 64  # shown one by one; of more, only the most that one uses, as worker "max"
EDITS = (1, 10, 100, 1000, 10_000)  # shown as such
#: The metrics whose means are shown: of data sets without neighbours, locality is that of unrelated questions.
MEANS = ("reliability.exact", "generality.exact", "locality.exact", "locality.unrelated.exact", "portability.exact")
