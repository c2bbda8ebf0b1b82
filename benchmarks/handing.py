"""What a real task costs the driver: tasks of 100 cases, handed out through Ray to actors that answer at once.

    python -m benchmarks.handing --out benchmarks/handing.json

The driver, its pool and its store are those of every campaign, and what workers get is unpacked as theirs is; no model
runs. Meanwhile so many other calls wait for their answers as a driver of 1,000 busy workers has. CPU time is that of
the whole process, and of the driver's own thread by what it does. `ray_alone` is what the same calls with the same
answers take of a process that does nothing else: no driver that calls an actor for each task can take less.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, cast
from unittest.mock import patch

import typer

os.environ["RAY_AUTH_MODE"] = "disabled"

import ray

from benchmarks.simulation import ACCOUNT
from cluster.campaign.spec import Campaign, WorkerSpec
from cluster.driver import run_campaign
from cluster.exporter.gauges import WorkerMemory
from cluster.exporter.tally import Tally
from cluster.plan.planner import Plan, plan
from cluster.scheduler.state import CampaignState
from cluster.store.store import Store
from cluster.workers.memory import memory_used
from cluster.workers.parcels import Packing, unpack
from cluster.workers.pool import RayPool, ray_pool
from cluster.workers.runner import TaskResult
from cluster.workers.version import code_version
from cluster.workers.worker import SETTINGS, Arrival

CHUNK, SEEDS = 100, 20  # cases of a task, and tasks about the same cases and by one editor
WORKERS, WAITING = 2, 1000
RATE = 1000 / 60  # tasks per second


@ray.remote(**SETTINGS)
class Answering:
    """A worker that has done each task as soon as it has come."""

    def __init__(self, store: str, spec: WorkerSpec) -> None:
        pass

    def ready(self) -> Arrival:
        return Arrival(ray.get_runtime_context().get_node_id(), os.uname().nodename, os.getpid(), code_version())

    def run(self, task: bytes, parts: int, *cases: bytes) -> TaskResult:
        unpack(task, cases)
        return TaskResult("done", 60.0, account=ACCOUNT, memory=memory_used())

    @ray.method(concurrency_group="control")
    def memory(self) -> WorkerMemory:
        return memory_used()


class Busy:
    """Has calls that are never answered."""

    async def stay(self) -> None:
        await asyncio.sleep(3600)


def campaign(cases: int) -> Campaign:
    return Campaign.model_validate({
        "name": "handing", "models": ["testbed-gptj"], "chunk": CHUNK, "editors": ["identity", "ft"],
        "seeds": list(range(SEEDS)), "datasets": [{"name": "testbed-cloze", "limit": cases}]})


class Spent:
    """CPU seconds of the driver's thread, by what it did."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._within = [""]

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **settings: Any) -> Any:
            began = time.thread_time()
            self._within.append(name)
            try:
                return call(*arguments, **settings)
            finally:
                self._within.pop()
                took = time.thread_time() - began
                self.seconds[name] += took
                self.seconds[self._within[-1]] -= took  # what is in another counts once
        return timed

    @contextmanager
    def timing(self, **parts: tuple[type, str]) -> Iterator[None]:
        """Takes the time of these methods, each of a class, during the block."""
        with ExitStack() as stack:
            for name, (owner, method) in parts.items():
                stack.enter_context(patch.object(owner, method, self._bound(name, getattr(owner, method))))
            yield

    def _bound(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        timed = self.timed(name, method)
        return lambda this, *arguments, **settings: timed(this, *arguments, **settings)


def ray_alone(planned: Plan) -> float:
    """CPU seconds of this process that one call of a worker about one of these tasks takes."""
    packing, make = Packing(ray.put), cast(Any, Answering)
    parcels = [packing.pack(task) for task in planned.tasks.values()]
    actor = make.options(num_cpus=0).remote("", WorkerSpec())
    ray.get(actor.ready.remote())
    began = time.process_time()
    for parcel in parcels:
        actor.run.remote(parcel.task, 1, *parcel.cases).future().result()
    took = time.process_time() - began
    ray.kill(actor)
    return took / len(parcels)


def measure(cases: int, idle: float = 10.0) -> dict[str, Any]:
    """Runs the campaign, after the pool has done nothing for so many seconds."""
    planned, spent, found = plan(campaign(cases)), Spent(), dict[str, Any]()

    @contextmanager
    def connect() -> Iterator[RayPool]:
        with ray_pool(store, WorkerSpec(count=WORKERS)) as pool:
            make: Any = ray.remote(Busy)
            busy = make.options(num_cpus=0, max_concurrency=WAITING + 1).remote()
            for number in range(WAITING):
                pool._await(busy.stay.remote(), -1 - number, "")
            pool.wait(5.0)
            began, cpu = time.monotonic(), time.process_time()
            while time.monotonic() - began < idle:
                pool.wait(1.0)
                pool.room  # noqa: B018 - asks for the nodes, as each second does
            found["idle"] = (time.process_time() - cpu) / (time.monotonic() - began)
            found["ray_alone"] = ray_alone(planned)
            found["began"] = time.process_time(), time.thread_time()
            yield pool
            found["process"], found["thread"] = (now - before for now, before in zip(
                (time.process_time(), time.thread_time()), found["began"], strict=True))

    with tempfile.TemporaryDirectory() as folder, \
            patch("cluster.workers.worker.worker_class", lambda spec: (Answering, {"num_cpus": spec.cpus})), \
            spent.timing(wait=(RayPool, "wait"), pack=(Packing, "pack"), submit=(RayPool, "assign"),
                         schedule=(CampaignState, "handle"), tally=(Tally, "handled")):
        store = Store.create(Path(folder) / "store")
        outcome = run_campaign(planned, store, connect)
    if outcome.failed or outcome.done != len(planned.tasks):
        raise RuntimeError(f"{outcome.failed} tasks failed, {outcome.done} of {len(planned.tasks)} were done")

    def per_task(seconds: float) -> float:
        return round(1000 * seconds / outcome.done, 3)

    parts = {name: per_task(seconds) for name, seconds in spent.seconds.items() if name}
    return {"tasks": outcome.done, "cases_per_task": CHUNK, "tasks_about_the_same_cases": 2 * SEEDS + 1,
            "calls_waiting": WAITING,
            "driver_cpu_ms_per_task": {"in_all": per_task(found["process"]), **parts,
                                       "rest": round(per_task(found["thread"]) - sum(parts.values()), 3),
                                       "rays_threads": per_task(found["process"] - found["thread"])},
            "ray_alone_cpu_ms_per_task": round(1000 * found["ray_alone"], 3),
            "idle_cpu_ms_per_second": round(1000 * found["idle"], 2),
            "cpu_ms_per_task_at_1000_a_minute": round(per_task(found["process"]) + 1000 * found["idle"] / RATE, 3)}


def main(out: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")], cases: int = 2000,
         rounds: int = 1) -> None:
    """Measure what a task takes of the driver; of several rounds the least."""
    found = min((measure(cases) for _ in range(rounds)), key=lambda each: each["driver_cpu_ms_per_task"]["in_all"])
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
