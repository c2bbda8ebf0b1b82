"""The driver at full size, without a cluster: simulated workers, simulated time, the real driver, state and store.

    python -m benchmarks.simulation --out benchmarks/simulation.json

By default 1,000 workers do 100,000 tasks of about a minute, in a graph like a campaign's, and die at a rate of
1 % an hour.
"""

from __future__ import annotations

import heapq
import json
import platform
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any
from unittest.mock import patch

import typer

from cluster.driver import Progress, run_campaign
from cluster.exporter.declared import MEANS
from cluster.exporter.gauges import Gauges, WorkerMemory
from cluster.exporter.latest import Latest
from cluster.exporter.server import Exporter, serving
from cluster.exporter.snapshot import Snapshot
from cluster.plan.labels import Labels
from cluster.scheduler.events import TaskDone, TaskNode, WorkerEvent, WorkerLost, WorkerUp
from cluster.scheduler.state import RetryPolicy
from cluster.store.store import CampaignRecord, ResultKey, Store, TaskRecord
from evaluators.metering.account import Account
from evaluators.metering.spent import Memory, Spent

MODELS = ("gpt-j", "t5-xl")
EDITORS = ("ft", "serac", "calinet", "t-patcher", "ke", "mend", "kn", "rome", "memit")
DATASETS = ("zsre", "counterfact")
ACCOUNT = Account(  # what each task tells of itself
    phases={phase: Spent(seconds=20.0, memory=Memory(allocated=30 << 30, device=40 << 30, rss=1 << 30))
            for phase in ("edit", "score", "store")},
    edits=25, probes=500, scored={metric: (20.0, 25) for metric in MEANS})
STARTS_IN = 60.0  # seconds that a worker takes to come up
LOADS_IN = 120.0  # seconds that it takes to load a model
SCRAPED_EVERY = 15.0  # seconds, as Prometheus does unless it is told otherwise
TRIP = 0.002  # seconds from the driver to a worker, or back
CHUNKS = 50  # score tasks that need one and the same baseline


@dataclass(frozen=True)
class SimulatedTask:
    """What the driver asks of a task, and the seconds that it takes."""

    id: str
    model: str
    needs: tuple[str, ...]
    seconds: float
    edits: int = 25
    temporary: bool = False
    kind = "score"

    @property
    def key(self) -> ResultKey:
        return ResultKey("rows", self.id)

    @property
    def title(self) -> str:
        return f"task {self.id}"

    @property
    def cost(self) -> float:
        return self.seconds

    def node(self, on_gpu: bool) -> TaskNode:
        return TaskNode(self.id, self.model, self.needs, self.cost, limit=3600.0, kind=self.kind)

    def record(self) -> TaskRecord:
        return TaskRecord(id=self.id, kind=self.kind, output="rows", title=self.title, edits=self.edits,
                          needs=self.needs)


def campaign(number: int, seed: int) -> list[SimulatedTask]:
    """Baselines, and score tasks that each need one; of about a minute, the longest some minutes."""
    draw, tasks, baseline = random.Random(seed), list[SimulatedTask](), ""
    for place in range(number):
        model = MODELS[place * len(MODELS) // number]
        if place % CHUNKS == 0 or not tasks or tasks[-1].model != model:
            baseline = f"{place:024x}"
            tasks.append(SimulatedTask(baseline, model, (), 20.0, 0))
        else:
            tasks.append(SimulatedTask(f"{place:024x}", model, (baseline,), draw.lognormvariate(4.0, 0.4)))
    return tasks


@dataclass
class SimulatedWorker:
    dies_at: float
    up_at: float | None = None
    free_at: float = 0.0
    model: str | None = None


class SimulatedPool:
    """A pool whose clock is its own: `wait` goes to the next event at once."""

    def __init__(self, workers: int, deaths_per_hour: float, seed: int) -> None:
        self.room, self.on_gpu, self.now, self.deaths = workers, True, 0.0, 0
        self.up_seconds = self.busy_seconds = 0.0
        self._rate, self._draw = deaths_per_hour / 3600, random.Random(seed)
        self._workers: dict[int, SimulatedWorker] = {}
        self._events: list[tuple[float, int, int, str, str]] = []  # when, tie-break, worker, what, task
        self._order = count()
        self.waits: Callable[[float], None] = lambda now: None

    def _at(self, when: float, worker: int, what: str, task: str = "") -> None:
        heapq.heappush(self._events, (when, next(self._order), worker, what, task))

    def start(self, worker: int) -> None:
        dies = self.now + (self._draw.expovariate(self._rate) if self._rate else float("inf"))
        self._workers[worker] = SimulatedWorker(dies)
        self._at(self.now + STARTS_IN, worker, "up")
        self._at(dies, worker, "dies")

    def retire(self, worker: int) -> None:
        self._leave(worker)

    def _leave(self, worker: int) -> None:
        gone = self._workers.pop(worker)
        if gone.up_at is not None:
            self.up_seconds += self.now - gone.up_at
            self.busy_seconds -= max(gone.free_at - self.now, 0.0)

    def assign(self, worker: int, task: Any, parts: int) -> None:
        at = self._workers[worker]
        takes = task.seconds + (LOADS_IN if at.model != task.model else 0.0)
        at.model, at.free_at = task.model, self.now + TRIP + takes
        self.busy_seconds += takes
        self._at(at.free_at + TRIP, worker, "done", task.id)

    def wait(self, seconds: float) -> list[WorkerEvent]:
        self.waits(self.now)
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, worker, what, task = heapq.heappop(self._events)
            if (event := self._event(worker, what, task)) is not None:
                return [event]
        self.now = until
        return []

    def _event(self, worker: int, what: str, task: str) -> WorkerEvent | None:
        at = self._workers.get(worker)
        if at is None:
            return None
        match what:
            case "up":
                at.up_at = at.free_at = self.now
                return WorkerUp(worker)
            case "dies":
                self.deaths += 1
                self._leave(worker)
                return WorkerLost(worker, "its node was taken away")
        return TaskDone(worker, task, account=ACCOUNT)

    def memory(self) -> dict[int, WorkerMemory]:
        return dict.fromkeys(self._workers, WorkerMemory(1 << 30, 80 << 30, 40 << 30, 30 << 30))

    def close(self) -> None:
        for worker in list(self._workers):
            self._leave(worker)


class SimulatedPlan:
    """What the driver asks of a plan."""

    def __init__(self, tasks: list[SimulatedTask]) -> None:
        self.tasks = {task.id: task for task in tasks}
        self.campaign = SimpleNamespace(name="simulation", retries=RetryPolicy(),
                                        **{names: [SimpleNamespace(name=name) for name in found] for names, found in (
                                            ("models", MODELS), ("datasets", DATASETS), ("editors", EDITORS))})

    def labels(self, task: str) -> Labels:
        number = int(task, 16)
        return Labels("score", self.tasks[task].model, EDITORS[number % len(EDITORS)],
                      DATASETS[number // 100 % len(DATASETS)], "single", 1)

    def record(self, started: Any) -> CampaignRecord:
        return CampaignRecord(name="simulation", digest="simulation", started=started, datasets=(),
                              tasks=tuple(task.record() for task in self.tasks.values()))


def resident() -> float:
    """MiB that this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class Scrapes:
    """Asks for metrics every 15 seconds of the simulation, as Prometheus does, and takes the CPU seconds of what the
    driver makes for it and of the text that is answered."""

    def __init__(self, latest: Latest) -> None:
        self._latest, self._due, self.number = latest, 0.0, 0
        self.snapshots = self.texts = 0.0

    def turn(self, now: float) -> None:
        """The driver waits for workers, and it is `now`: another thread would answer meanwhile."""
        if now >= self._due:
            self._due = now + SCRAPED_EVERY
            self._latest.wanted = True

    def snapshot(self, make: Callable[..., Snapshot], *args: Any) -> Snapshot:
        began = time.process_time()
        made = make(*args)
        between = time.process_time()
        self._latest.written(made)
        self.number, self.snapshots = self.number + 1, self.snapshots + between - began
        self.texts += time.process_time() - between
        return made

    @contextmanager
    def timed(self) -> Iterator[None]:
        make = Gauges.snapshot
        with patch.object(Gauges, "snapshot", lambda *args: self.snapshot(make, *args)):
            yield


def cpu_of_answer() -> float:
    """CPU seconds of what else there is to a scrape, of whoever asks too: the least of an HTTP request that is answered
    with what the process itself takes."""
    times = list[float]()
    with serving(9464, "127.0.0.1") as exporter:
        asking = HTTPConnection(str(exporter.address).removeprefix("http://").removesuffix("/metrics"))
        for _ in range(50):
            began = time.process_time()
            asking.request("GET", "/metrics")
            asking.getresponse().read()
            times.append(time.process_time() - began)
        asking.close()
    return min(times)


def simulate(workers: int, tasks: int, deaths_per_hour: float, seed: int) -> dict[str, Any]:
    """Runs a simulated campaign, shown as to Prometheus, to its end and says what it took."""
    plan, pool = SimulatedPlan(campaign(tasks, seed)), SimulatedPool(workers, deaths_per_hour, seed)
    memory: list[float] = []

    def watch(progress: Progress) -> None:
        if progress.done >= len(memory) * tasks // 10:
            memory.append(resident())

    @contextmanager
    def connect() -> Iterator[SimulatedPool]:
        yield pool
        pool.close()

    with tempfile.TemporaryDirectory() as folder:
        store, latest = Store.create(Path(folder) / "store"), Latest()
        scrapes = Scrapes(latest)
        pool.waits = scrapes.turn
        began, cpu = time.perf_counter(), time.process_time()
        with scrapes.timed():
            outcome = run_campaign(plan, store, connect, watch,  # type: ignore[arg-type]
                                   Exporter((latest,)), clock=lambda: pool.now)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    if outcome.done + outcome.failed != tasks:
        raise RuntimeError(f"{tasks - outcome.done - outcome.failed} tasks were lost")
    http = cpu_of_answer()
    showing = scrapes.snapshots + scrapes.texts + scrapes.number * http
    return {"workers": workers, "tasks": tasks, "deaths_per_hour": deaths_per_hour, "seed": seed,
            "done": outcome.done, "failed": outcome.failed, "workers_lost": pool.deaths,
            "simulated_hours": round(pool.now / 3600, 3),
            "idle_share": round(1 - pool.busy_seconds / pool.up_seconds, 6),
            "driver_cpu_ms_per_task": round(1000 * cpu / tasks, 4),
            "scrapes": scrapes.number,
            "scrape_cpu_ms": {"snapshot": round(1000 * scrapes.snapshots / scrapes.number, 3),
                              "text": round(1000 * scrapes.texts / scrapes.number, 3),
                              "http": round(1000 * http, 3)},
            "exporter_cpu_ms_per_second": round(1000 * showing / pool.now, 4),  # of the campaign
            "exporter_share_of_driver": round(showing / (cpu + scrapes.number * http), 4),
            "wall_seconds": round(wall, 1),
            "resident_mib": [round(mib) for mib in memory], "machine": platform.machine(),
            "python": platform.python_version()}


def main(
    out: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")],
    workers: int = 1000, tasks: int = 100_000, deaths_per_hour: float = 0.01, seed: int = 0, rounds: int = 3,
) -> None:
    """Simulate a campaign and write what the driver took for it, and how much of that to show it."""
    found = min((simulate(workers, tasks, deaths_per_hour, seed) for _ in range(rounds)),
                key=lambda run: run["driver_cpu_ms_per_task"])
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
