"""A worker: a Ray actor that stays, holding a model and running tasks on it one after another."""

from __future__ import annotations

import contextlib
import gc
import os
import time
import traceback
from typing import Any, Literal, NamedTuple, Protocol

import ray
import torch

from cluster.campaign.spec import WorkerSpec
from cluster.plan.tasks import Task
from cluster.store.errors import Damaged, StoreError
from cluster.store.store import Store
from cluster.workers.executor import TaskExecutor
from cluster.workers.version import code_version


class TaskResult(NamedTuple):
    """What became of a task: it is `done`, or why it is not. `detail` is the traceback of what went wrong."""

    outcome: Literal["done", "failed", "out of memory", "damaged"]
    seconds: float = 0.0
    detail: str = ""
    damaged: str = ""


class Arrival(NamedTuple):
    """Where a worker came up, and with which code."""

    node: str
    host: str
    pid: int
    code: str


class Runner(Protocol):
    """Runs tasks, and says what became of them."""

    def prepare(self) -> None:
        """Called once, before the first task."""

    def run(self, task: Task, parts: int = 1) -> TaskResult: ...


class TaskRunner:
    """A runner in this process, with the threads and the device it was given."""

    def __init__(self, store: str, spec: WorkerSpec) -> None:
        torch.set_num_threads(spec.cpus)
        if spec.gpus:  # a sum in another order would make other rows
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        self.executor = TaskExecutor(Store.open(store), "cuda" if spec.gpus else "cpu")

    def prepare(self) -> None:
        pass

    def run(self, task: Task, parts: int = 1) -> TaskResult:
        """Does a task, in so many parts. Raises only what the process cannot go on after: a device error breaks every
        later task too, and a worker that cannot write is of no use."""
        started = time.monotonic()
        try:
            self.executor.run(task, parts)
        except (torch.AcceleratorError, StoreError):
            raise
        except Damaged as error:
            return TaskResult("damaged", time.monotonic() - started, str(error), error.key.id)
        except Exception as error:
            trace, seconds = traceback.format_exc(), time.monotonic() - started
            if is_out_of_memory(error):
                del error
                self._free()
                return TaskResult("out of memory", seconds, trace)
            return TaskResult("failed", seconds, trace)
        return TaskResult("done", time.monotonic() - started)

    def _free(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the process has no more memory to give."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


def new_runner(store: str, spec: WorkerSpec) -> Runner:
    """The runner of a worker: its own process, or a gang of processes that it leads."""
    if not spec.is_gang:
        return TaskRunner(store, spec)
    from cluster.workers.gang import Gang

    return Gang(store, spec)


def arrive() -> Arrival:
    context = ray.get_runtime_context()
    return Arrival(context.get_node_id(), os.uname().nodename, os.getpid(), code_version())


@ray.remote(max_restarts=0, max_task_retries=0)  # the campaign's state decides about them
class Worker:
    """Runs tasks; one worker to the driver, whether it is one process or leads a gang."""

    def __init__(self, store: str, spec: WorkerSpec) -> None:
        self._runner = new_runner(store, spec)

    def ready(self) -> Arrival:
        """Returns once the worker is up."""
        self._runner.prepare()
        return arrive()

    def run(self, task: Task, parts: int) -> TaskResult:
        return self._runner.run(task, parts)


def worker_class(spec: WorkerSpec) -> tuple[Any, dict[str, Any]]:
    """The actor class of a worker, and the Ray options to make one with. Who leads a gang takes up nothing itself."""
    return Worker, {"num_cpus": 0} if spec.is_gang else {"num_cpus": spec.cpus, "num_gpus": spec.gpus}


def end_worker(actor: Any, spec: WorkerSpec) -> None:
    """Ends a worker of this specification, whatever it is doing, and gives back what it took up."""
    ray.kill(actor)
    if spec.is_gang:  # its ranks die with it, but their place would stay taken until the driver ends
        with contextlib.suppress(ValueError):  # there is none any more
            ray.util.remove_placement_group(ray.util.get_placement_group(place_of(actor._actor_id.hex())))


class GangLost(Exception):
    """A gang that has come apart: its ranks are gone, and the task has to be run by another. See `WorkerLost`."""

    def __init__(self, reason: str, with_node: bool = False) -> None:
        super().__init__(reason, with_node)
        self.with_node = with_node

    def __str__(self) -> str:
        return str(self.args[0])


def went_with_node(error: ray.exceptions.RayError, node: str | None) -> bool:
    """Whether an actor on this node was lost because the node was, or the way there, or those of a rank that it led."""
    if isinstance(cause := getattr(error, "cause", None), GangLost):
        return cause.with_node
    return isinstance(error, ray.exceptions.ActorUnavailableError) or (
        node is not None and not any(other["Alive"] for other in ray.nodes() if other["NodeID"] == node))


def place_of(actor_id: str | None) -> str:
    """The name of the placement group of the gang that an actor leads; none where no actor does."""
    return f"gang-{actor_id}" if actor_id else ""
