"""A worker: a Ray actor that stays, holding a model and running tasks on it one after another."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import ray
import torch

from cluster.campaign import WorkerSpec
from cluster.store import Store
from cluster.tasks import Workbench
from cluster.work import Task


@ray.remote(max_restarts=0, max_task_retries=0)  # the campaign's state decides about both
class Worker:
    """Runs tasks with the threads and the device it was given."""

    def __init__(self, store: Path, spec: WorkerSpec) -> None:
        torch.set_num_threads(spec.cpus)
        if spec.gpus:  # a sum in another order would make other rows
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        self._bench = Workbench(Store.open(store), "cuda" if spec.gpus else "cpu")

    def ready(self) -> None:
        """Returns once the worker is up."""

    def run(self, task: Task) -> str | None:
        """None when the task's result is in the store, else the traceback of what went wrong.

        Raises only what the process cannot go on after: a device error breaks every later task too.
        """
        try:
            self._bench.run(task)
        except torch.AcceleratorError:
            raise
        except Exception:
            return traceback.format_exc()
        return None
