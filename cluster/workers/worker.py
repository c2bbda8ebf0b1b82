"""A worker: a Ray actor that stays, holding a model and running tasks on it one after another."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import Any, NamedTuple

import ray

from cluster.campaign.spec import WorkerSpec
from cluster.exporter.gauges import WorkerMemory
from cluster.workers.control import patiently
from cluster.workers.gang import Gang, group_of
from cluster.workers.memory import memory_used
from cluster.workers.parcels import unpack
from cluster.workers.runner import Runner, TaskResult, TaskRunner
from cluster.workers.version import code_version

#: The campaign's state decides what becomes of those that are lost. Calls of `control` are answered during tasks.
SETTINGS: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {"control": 1}}


class Arrival(NamedTuple):
    """Where a worker came up, and with which code."""

    node: str
    host: str
    pid: int
    code: str


@ray.remote(**SETTINGS)
class Worker:
    """Runs tasks; one worker to the driver, whether it is one process or leads a gang."""

    def __init__(self, store: str, spec: WorkerSpec) -> None:
        self._runner: Runner = Gang(store, spec) if spec.is_gang else TaskRunner(store, spec)

    def ready(self) -> Arrival:
        """Returns once the worker is up."""
        self._runner.prepare()
        return Arrival(ray.get_runtime_context().get_node_id(), os.uname().nodename, os.getpid(), code_version())

    def run(self, task: bytes, parts: int, *cases: bytes) -> TaskResult:
        """Does a task, which came as a parcel."""
        result = self._runner.run(unpack(task, cases), parts)
        return result if isinstance(self._runner, Gang) else result._replace(memory=memory_used())

    @ray.method(concurrency_group="control")
    def memory(self) -> WorkerMemory:
        """What it uses just now; answers during a task, too."""
        return memory_used()


def worker_class(spec: WorkerSpec) -> tuple[Any, dict[str, Any]]:
    """The actor class of a worker, and the Ray options to make one with. Who leads a gang takes up nothing itself."""
    return Worker, {"num_cpus": 0} if spec.is_gang else {"num_cpus": spec.cpus, "num_gpus": spec.gpus}


def end_worker(actor: Any, spec: WorkerSpec) -> None:
    """Ends a worker of this specification, whatever it is doing, and gives back what it took up."""
    ray.kill(actor)
    if spec.is_gang:  # its ranks die with it, but what was reserved for them would stay so until the driver ends
        patiently(partial(_give_back, group_of(actor._actor_id.hex())))


def _give_back(group: str) -> None:
    with contextlib.suppress(ValueError):  # there is none any more
        ray.util.remove_placement_group(ray.util.get_placement_group(group))
