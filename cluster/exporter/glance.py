"""What a driver writes beside its store for people who look: of a record of any version, as much as it tells."""

from __future__ import annotations

import math
from itertools import islice

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.exporter.gauges import Gauges
from cluster.exporter.snapshot import Frozen
from cluster.exporter.tally import BOUNDS, Counted, Tally
from cluster.progress import Progress
from cluster.scheduler.state import CampaignState
from cluster.store.lease import DriverRecord

NEWEST = 12  # means that are told


class StoreCalls(BaseModel):
    """How many calls of a store there were, in how many seconds in all, how many of them failed, and within how many
    seconds 95 of 100 came back; None where that took longer than anybody counts."""

    calls: int = 0
    seconds: float = 0.0
    errors: int = 0
    p95: float | None = None


class MeanSoFar(BaseModel):
    """A metric's mean over `n` scores so far."""

    editor: str
    model: str
    dataset: str
    protocol: str
    edits: str
    metric: str
    mean: float
    n: int


class Glance(BaseModel):
    """A campaign at a moment: counts of its tasks and edits, the `share` of its work that is done, and the seconds that
    are left, None where nobody knows; how many workers are up and starting, what each is `at` and for how many seconds;
    how many were `lost`, tasks tried again and attempts that failed, by reason; the store; the means that changed last,
    the newest first; and where the `metrics` are, if anywhere."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    tasks: int = 0
    done: int = 0
    failed: int = 0
    edits: int = 0
    edits_done: int = 0
    share: float | None = None
    remaining: float | None = None
    workers: int = 0
    starting: int = 0
    at: dict[str, str] = {}
    seconds: dict[str, float] = {}
    lost: dict[str, int] = {}
    retries: dict[str, int] = {}
    failures: dict[str, int] = {}
    store: dict[str, StoreCalls] = {}
    means: list[MeanSoFar] = Field(default=[], max_length=1000)
    metrics: str | None = None


def told(driver: DriverRecord) -> Glance:
    """What a driver's record tells; nothing where it is another version's."""
    try:
        return Glance.model_validate(driver.state)
    except ValidationError:
        return Glance()


def glance(tally: Tally, gauges: Gauges, state: CampaignState, progress: Progress, titles: dict[int, str],
           metrics: str | None) -> Glance:
    """How a campaign is at this moment; `titles` are of the tasks that workers are at."""
    remaining = gauges.remaining(progress)
    newest = ((key, tally.means[key]) for key in islice(reversed(tally.newest), NEWEST))
    failures: dict[str, int] = {}
    for (_, reason), count in tally.counters["task_failures"].items():
        if count:
            failures[reason] = failures.get(reason, 0) + int(count)
    return Glance(
        tasks=progress.tasks, done=progress.done, failed=progress.failed, edits=progress.edits,
        edits_done=progress.edits_done, share=progress.share, remaining=None if math.isnan(remaining) else remaining,
        workers=state.workers.up, starting=len(state.workers.states) - state.workers.up,
        at={str(worker): title for worker, title in titles.items()},
        seconds={str(worker): round(seconds, 1) for worker, seconds in tally.seconds().items()},
        lost=_counted(tally, "workers_lost"), retries=_counted(tally, "task_retries"), failures=failures,
        store=_store(tally), metrics=metrics,
        means=[MeanSoFar(model=model, dataset=dataset, protocol=protocol, edits=edits, editor=editor, metric=metric,
                         mean=mean.total / mean.n, n=mean.n)
               for (model, dataset, protocol, edits, editor, metric), mean in newest if mean.n])


def _counted(tally: Tally, name: Counted) -> dict[str, int]:
    """What a counter with one label has counted, by that label."""
    return {label: int(count) for (label,), count in tally.counters[name].items() if count}


def _store(tally: Tally) -> dict[str, StoreCalls]:
    errors = _counted(tally, "store_errors")
    frozen = {operation: series.frozen() for (operation,), series in tally.histograms["store_seconds"].items()}
    return {operation: calls_of(histogram, errors.get(operation, 0)) for operation, histogram in frozen.items()}


def calls_of(histogram: Frozen, errors: int) -> StoreCalls:
    """Calls of a store by how long they took."""
    p95 = histogram.bound_of(0.95, BOUNDS["store_seconds"])
    return StoreCalls(calls=sum(histogram.counts), seconds=round(histogram.total, 6), errors=errors,
                      p95=None if math.isinf(p95) else p95)
