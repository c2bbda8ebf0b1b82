"""What handing out tasks costs on real workers: a campaign of small tasks on a local Ray, with one worker and with two.

    python -m benchmarks.workers --out benchmarks/workers.json

Overhead per task is the time that workers were at no task, from when each came up until it was done with its last one,
divided by the number of tasks.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

os.environ["RAY_AUTH_MODE"] = "disabled"

from cluster.campaign.spec import Campaign, WorkerSpec
from cluster.driver import run_campaign
from cluster.plan.planner import plan
from cluster.scheduler.events import TaskDone, WorkerEvent, WorkerUp
from cluster.store.store import Store
from cluster.workers.pool import RayPool, ray_pool

CHUNK = 5  # cases per task: much smaller than real ones


def campaign(cases: int) -> Campaign:
    return Campaign.model_validate({
        "name": "throughput", "models": ["testbed-gptj"], "chunk": CHUNK, "editors": ["identity", "t-patcher"],
        "datasets": [{"name": "testbed-cloze", "limit": cases}]})


class Watch:
    """Remembers when each worker came up, when it was done with its last task, and the seconds it was at tasks."""

    def __init__(self, wait: Callable[[float], list[WorkerEvent]]) -> None:
        self._wait = wait
        self.up: dict[int, float] = {}
        self.done: dict[int, float] = {}
        self.busy: dict[int, float] = defaultdict(float)

    def wait(self, seconds: float) -> list[WorkerEvent]:
        events = self._wait(seconds)
        for event in events:
            if isinstance(event, WorkerUp):
                self.up[event.worker] = time.perf_counter()
            elif isinstance(event, TaskDone):
                self.done[event.worker] = time.perf_counter()
                self.busy[event.worker] += event.seconds
        return events


def measure(workers: int, cases: int) -> dict[str, Any]:
    """Runs the campaign with so many workers in a store of its own."""
    planned, watches = plan(campaign(cases)), list[Watch]()

    @contextmanager
    def connect() -> Iterator[RayPool]:
        with ray_pool(store, WorkerSpec(count=workers)) as pool:
            watches.append(Watch(pool.wait))
            pool.wait = watches[-1].wait  # type: ignore[method-assign]
            yield pool

    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "store")
        cpu = time.process_time()
        outcome = run_campaign(planned, store, connect)
        cpu = time.process_time() - cpu
    (seen,) = watches
    seconds, busy = max(seen.done.values()) - min(seen.up.values()), sum(seen.busy.values())
    at_hand = sum(seen.done[worker] - seen.up[worker] for worker in seen.done)
    return {"workers": workers, "tasks": outcome.done, "edits": outcome.edits_done,
            "seconds": round(seconds, 2), "seconds_at_tasks": round(busy, 2),
            "edits_per_second": round(outcome.edits_done / seconds, 2),
            "overhead_ms_per_task": round(1000 * (at_hand - busy) / outcome.done, 2),
            "driver_cpu_ms_per_task": round(1000 * cpu / outcome.done, 2)}


def main(out: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")], cases: int = 200) -> None:
    """Measure one worker and two, one after the other."""
    found = {"cpus": os.cpu_count(), "runs": [measure(workers, cases) for workers in (1, 2)]}
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
