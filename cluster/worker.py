"""A worker: a Ray actor that stays, holding a model and running tasks on it one after another."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import ray
import torch

from cluster.campaign import WorkerSpec
from cluster.store import Store
from cluster.tasks import Workbench
from cluster.work import Task


class Result(NamedTuple):
    """What became of a task: it is `done`, or why it is not. `detail` is the traceback of what went wrong."""

    outcome: Literal["done", "failed", "out of memory"]
    seconds: float = 0.0
    detail: str = ""


class Runner(Protocol):
    """Runs tasks, and says what became of them."""

    def prepare(self) -> None:
        """Called once, before the first task."""

    def run(self, task: Task) -> Result: ...


class TaskRunner:
    """A runner in this process, with the threads and the device it was given."""

    def __init__(self, store: Path, spec: WorkerSpec) -> None:
        torch.set_num_threads(spec.cpus)
        if spec.gpus:  # a sum in another order would make other rows
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        self.bench = Workbench(Store.open(store), "cuda" if spec.gpus else "cpu")

    def prepare(self) -> None:
        pass

    def run(self, task: Task) -> Result:
        """Raises only what the process cannot go on after: a device error breaks every later task too."""
        started = time.monotonic()
        try:
            self.bench.run(task)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
            return Result("out of memory" if out_of_memory else "failed", time.monotonic() - started,
                          traceback.format_exc())
        return Result("done", time.monotonic() - started)


def new_runner(store: Path, spec: WorkerSpec) -> Runner:
    """The runner of a worker: its own process, or a gang of processes that it leads."""
    if not spec.is_gang:
        return TaskRunner(store, spec)
    from cluster.gang import Gang

    return Gang(store, spec)


@ray.remote(max_restarts=0, max_task_retries=0)  # the campaign's state decides about both
class Worker:
    """Runs tasks; one worker to the driver, whether it is one process or leads a gang."""

    def __init__(self, store: Path, spec: WorkerSpec) -> None:
        self._runner = new_runner(store, spec)

    def ready(self) -> None:
        """Returns once the worker is up."""
        self._runner.prepare()

    def run(self, task: Task) -> str | None:
        """None when the task's result is in the store, else the traceback of what went wrong."""
        result = self._runner.run(task)
        return None if result.outcome == "done" else result.detail


def worker_class(spec: WorkerSpec) -> tuple[Any, dict[str, Any]]:
    """The actor class of a worker, and the Ray options to make one with. Who leads a gang takes up nothing itself."""
    return Worker, {"num_cpus": 0} if spec.is_gang else {"num_cpus": spec.cpus, "num_gpus": spec.gpus}


def end_worker(actor: Any, spec: WorkerSpec) -> None:
    """Ends a worker of this specification, whatever it is doing, and gives back what it took up."""
    ray.kill(actor)
    if spec.is_gang:  # its ranks die with it, but their place would stay taken until the driver ends
        with contextlib.suppress(ValueError):  # there is none any more
            ray.util.remove_placement_group(ray.util.get_placement_group(place_of(actor._actor_id.hex())))


def place_of(actor_id: str | None) -> str:
    """The name of the placement group of the gang that an actor leads; none where no actor does."""
    return f"gang-{actor_id}" if actor_id else ""
