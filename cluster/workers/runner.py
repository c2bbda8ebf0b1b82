"""Runs tasks in this process, one after another, and says what became of each. Knows no Ray."""

from __future__ import annotations

import gc
import os
import time
import traceback
from typing import Literal, NamedTuple, Protocol

import torch

from cluster.campaign.spec import WorkerSpec
from cluster.exporter.gauges import WorkerMemory
from cluster.plan.tasks import Task
from cluster.store.errors import Damaged, StoreError
from cluster.store.store import Store
from cluster.workers.executor import TaskExecutor
from editors.core.places import scrubbed
from evaluators.metering.account import Account


class TaskResult(NamedTuple):
    """What became of a task: it is `done`, or why it is not. `detail` is the traceback of what went wrong; `damaged` is
    the id of the task whose result could not be read. `account` tells what one cost that was done here, and `memory`
    what its process uses after it."""

    outcome: Literal["done", "failed", "out of memory", "damaged"]
    seconds: float = 0.0
    detail: str = ""
    damaged: str = ""
    account: Account = Account()
    memory: WorkerMemory | None = None


class Runner(Protocol):
    """Runs tasks: in this process, or in several."""

    def prepare(self) -> None:
        """Called once, before the first task."""

    def run(self, task: Task, parts: int = 1) -> TaskResult:
        """Does a task, in so many parts. Raises only what the runner cannot go on after."""


class TaskRunner:
    """A runner in this process, with the threads and the device it was given."""

    def __init__(self, store: str, spec: WorkerSpec) -> None:
        torch.set_num_threads(spec.threads)
        if spec.gpus:  # a sum in another order would make other rows
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        self.executor = TaskExecutor(Store.open(store), "cuda" if spec.gpus else "cpu")

    def prepare(self) -> None:
        pass

    def run(self, task: Task, parts: int = 1) -> TaskResult:
        """What became of a task, done in so many parts. Raises only what the process cannot go on after: a device error
        breaks every later task too, and a worker that cannot write is of no use."""
        started = time.monotonic()
        try:
            account = self.executor.run(task, parts)
        except (torch.AcceleratorError, StoreError):
            raise
        except Damaged as error:
            return TaskResult("damaged", time.monotonic() - started, str(error), error.key.id)
        except Exception as error:
            trace, seconds = scrubbed(traceback.format_exc()), time.monotonic() - started
            if is_out_of_memory(error):
                del error  # which holds on to the tensors of the frames that it went through
                self.executor.room.halve()
                self.executor.held.forget()
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                return TaskResult("out of memory", seconds, trace)
            return TaskResult("failed", seconds, trace)
        return TaskResult("done", time.monotonic() - started, account=account)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the process has no more memory to give."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
