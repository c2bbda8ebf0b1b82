"""Every metric of a campaign as it stands: what was counted, and what the campaign's state says."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import NamedTuple

from cluster.exporter.declared import MOST_WORKERS, VALUES
from cluster.exporter.snapshot import LabelValues, Snapshot
from cluster.exporter.tally import Mean, Tally
from cluster.progress import Progress
from cluster.scheduler.state import CampaignState
from cluster.store.records import CampaignRecord
from editors.core.printable import CELL, printable

NOTHING: LabelValues = ()
NEIGHBOURS, UNRELATED = "locality.exact", "locality.unrelated.exact"


class WorkerMemory(NamedTuple):
    """Bytes that a worker uses now, of those that there are: of its device, of which it `allocated` so much itself, and
    of its process. `limit` is all that it can have: its device's, or without one its machine's."""

    rss: int
    limit: int
    device: int | None = None
    allocated: int | None = None


class Gauges:
    """Of one campaign, from `start` on: as far as it was when this driver began."""

    def __init__(self, tally: Tally, record: CampaignRecord, place: str, start: Progress) -> None:
        self._tally, self._record, self._place, self._start = tally, record, place, start
        self._campaign = printable(record.name, CELL)

    @cached_property
    def _info(self) -> LabelValues:
        return (self._record.digest, *map(_version, ("editfleet", "ray", "torch")), printable(self._place, CELL))

    @cached_property
    def _no_tasks(self) -> dict[LabelValues, float]:
        """A count of zero tells that there are none; one that is missing tells nothing."""
        return dict.fromkeys(product(self._tally.kinds, VALUES["tasks", "state"]), 0.0)

    def remaining(self, progress: Progress) -> float:
        """Seconds that are left at the speed so far; NaN while that is not known."""
        left, made = progress.cost - progress.cost_done, progress.cost_done - self._start.cost_done
        if progress.done + progress.failed >= progress.tasks:
            return 0.0
        if made <= 0:
            return math.nan
        return max(left, 0.0) * self._tally.at_work_for / made

    def snapshot(self, state: CampaignState, progress: Progress,
                 memory: Mapping[int, WorkerMemory] | None = None) -> Snapshot:
        """All there is to show, at this moment."""
        tally, workers = self._tally, state.workers
        idle, up = len(workers.idle), workers.up
        one = {
            "campaign_start_timestamp_seconds": tally.began,
            "driver_heartbeat_timestamp_seconds": time.time(),
            "last_task_end_timestamp_seconds": tally.last_task_end,
            "progress_ratio": progress.share,
            "expected_remaining_seconds": self.remaining(progress),
            "ready_task_oldest_age_seconds": state.oldest_ready,
            "edits_planned": progress.edits,
            "edits_done": progress.edits_done,
            "worker_busy_seconds": tally.busy_seconds,
        }
        used, limits = _of_workers(memory or {})
        means, cases = _shown(tally.means)
        return Snapshot(self._campaign, {
            "campaign_info": {self._info: 1.0},
            **{name: {NOTHING: float(value)} for name, value in one.items()},
            "tasks": {**self._no_tasks, **{(kind, stage): float(count)
                                           for (kind, stage), count in state.graph.counts.items()}},
            "workers": {("wanted",): state.wanted, ("starting",): len(workers.states) - up, ("idle",): idle,
                        ("busy",): up - idle},
            **{name: dict(counted) for name, counted in tally.counters.items()},
            "phase_peak_memory_bytes": dict(tally.peaks),
            "worker_memory_bytes": used,
            "worker_memory_limit_bytes": limits,
            "metric_mean": means,
            "cases_scored": cases,
        }, {name: {labels: histogram.frozen() for labels, histogram in series.items()}
            for name, series in tally.histograms.items()})


def _shown(means: Mapping[LabelValues, Mean]) -> tuple[dict[LabelValues, float], dict[LabelValues, float]]:
    """Means, and over how many cases each; without locality on unrelated questions where there are neighbours."""
    values, cases = dict[LabelValues, float](), dict[LabelValues, float]()
    for labels, (total, n) in means.items():
        if n and not (labels[-1] == UNRELATED and (*labels[:-1], NEIGHBOURS) in means):
            values[labels], cases[labels] = total / n, float(n)
    return values, cases


def _of_workers(memory: Mapping[int, WorkerMemory]) -> tuple[dict[LabelValues, float], dict[LabelValues, float]]:
    """What workers use and can have, each by its number; of many, only the most."""
    if len(memory) <= MOST_WORKERS:
        shown = {str(worker): at for worker, at in memory.items()}
    else:
        rss, limits, *of_device = zip(*memory.values())  # noqa: B905 - which of a thousand is a third faster
        shown = {"max": WorkerMemory(max(rss), max(limits), *(max(filter(None, each), default=None)
                                                               for each in of_device))}
    used: dict[LabelValues, float] = {
        (worker, name): float(value) for worker, at in shown.items() for name in ("device", "allocated", "rss")
        if (value := getattr(at, name)) is not None}
    return used, {(worker,): float(at.limit) for worker, at in shown.items()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
