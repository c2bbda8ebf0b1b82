"""One process of a gang, a rank: a worker's runner on its part of the model, in lockstep with the other ranks."""

from __future__ import annotations

import os
import shutil
import socket
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import ray
import torch
from safetensors import safe_open

from cluster.campaign.spec import WorkerSpec
from cluster.plan.tasks import Task
from cluster.store.files import WorkingFile
from cluster.store.store import ResultKey, Store
from cluster.workers.runner import TaskResult, TaskRunner
from cluster.workers.scratch import Scratch
from cluster.workers.version import code_version
from editors.core.models.model import LanguageModel

LOOPBACK = "127.0.0.1"

T = TypeVar("T")


class RankAddress(NamedTuple):
    """Where a rank has come up, and the code that it runs."""

    host: str
    node: str
    code: str


class Rank:
    """One process of a gang."""

    def __init__(self, store: str, spec: WorkerSpec, number: int) -> None:
        self._root, self._spec, self._number = store, spec, number
        self._module: Any = lambda: None
        self._files: Path | None = None
        #: Where the ranks meet: of rank 0 alone.
        self._socket: socket.socket | None = None

    def arrive(self) -> RankAddress:
        """Returns once this rank has come up. Raises `InputError` where weights cannot be kept in files."""
        device, world = ("cuda" if self._spec.gpus else "cpu"), str(self._spec.devices)
        # Ray shows each rank its own device alone, as number 0.
        os.environ.update(DS_ACCELERATOR=device, RANK=str(self._number), WORLD_SIZE=world, LOCAL_RANK="0",
                          LOCAL_SIZE=world)
        import deepspeed.ops  # reads the environment

        if device == "cpu":  # else an operation is compiled for half a minute, to reduce what is never reduced
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        from cluster.workers.zero3 import weight_files

        if self._spec.nvme is not None:
            self._files = weight_files(self._spec.nvme)
        return RankAddress(ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id(), code_version())

    def listen(self, host: str) -> int:
        """A port of this host, which is here, at which the ranks can meet, and nobody by other ways to this machine."""
        self._socket = socket.create_server((host, 0))
        return int(self._socket.getsockname()[1])

    def join(self, host: str, port: int) -> None:
        """Returns once all ranks have met at this address."""
        import deepspeed

        if host == LOOPBACK:
            os.environ.update(GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")
        patience, backend = timedelta(seconds=self._spec.timeout), "nccl" if self._spec.gpus else "gloo"
        store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
            host, port, self._spec.devices, is_master=self._socket is not None, timeout=patience,
            master_listen_fd=self._socket.detach() if self._socket else None)
        torch.distributed.init_process_group(backend, store=store, rank=self._number, world_size=self._spec.devices,
                                             timeout=patience)
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)  # which takes this group up
        self._runner = TaskRunner(self._root, self._spec)
        executor = self._runner.executor
        executor.held.load, executor.share = self._load, gathered
        executor.store = self._store = RankStore(executor.store, agree, writes=self._number == 0)

    def begin(self, task: Task) -> None:
        """Has all ranks start from the same: the result is missing, and so far the training has come."""
        self._store.begin(task.key)

    def run(self, task: Task, *arguments: Any) -> TaskResult:
        result = self._runner.run(task, *arguments)
        module = self._module()
        if result.outcome != "done" and module is not None:
            from cluster.workers.zero3 import tidy

            tidy(module)
        return result

    def meet(self) -> None:
        """Returns once all ranks have come here; raises where they cannot talk any more."""
        torch.distributed.barrier()

    def _load(self, path: str, *, device: str, dtype: str) -> LanguageModel:
        from cluster.workers.zero3 import load_sharded

        model = load_sharded(path, device=device, dtype=dtype, offload=self._spec.offload, files=self._files)
        self._module = weakref.ref(model.module)
        return model


def gathered(result: T) -> list[T]:
    """What each rank has, in their order, once all have come here. Raises where one is lost."""
    results: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(results, result)
    return results


def agree(result: object) -> None:
    """Returns once all ranks have come here with equal results. Raises where they have not, or one is lost."""
    results = gathered(result)
    if any(other != result for other in results):
        raise RuntimeError(f"the ranks of a gang came to different results: {'; '.join(map(str, results))}")


class RankStore(Store):
    """A store as one rank sees it. Every rank reads; what others than rank 0 write goes nowhere.

    Nothing is written before all ranks `agree` on its form: to the evaluators a rank that is lost looks like a case
    that cannot be edited, and what comes after would be wrong.
    """

    def __init__(self, store: Store, agree: Callable[[object], None], *, writes: bool) -> None:
        vars(self).update(vars(store))
        self._agree, self._writes = agree, writes
        self._missing: ResultKey | None = None
        self._nowhere = Scratch()

    def begin(self, key: ResultKey) -> None:
        """Counts the result as missing from here on, whoever may write it meanwhile; keeps its checkpoint as it is."""
        self._missing = key
        if not self._writes:
            self._nowhere.remove()
            with super().checkpoint(key) as (found, _):
                if found.exists():
                    shutil.copyfile(found, self._checkpoint(key))

    def has(self, key: ResultKey) -> bool:
        return key != self._missing and super().has(key)

    def write_table(self, key: ResultKey, table: pa.Table, provenance: Mapping[str, Any],
                    answers: pa.Table | None = None) -> None:
        self._agree([table.num_rows, -1 if answers is None else answers.num_rows,
                     *(case["case_id"] for case in provenance["failed"])])
        if self._writes:
            super().write_table(key, table, provenance, answers)

    @contextmanager
    def new_artefact(self, key: ResultKey, provenance: Mapping[str, Any]) -> Iterator[Path]:
        if self._writes:
            with super().new_artefact(key, provenance) as path:
                yield path
                self._agree(_shapes(path))
        else:
            path = self._nowhere.folder / "artefact"
            try:
                yield path
                self._agree(_shapes(path))
            finally:
                self._nowhere.remove()

    def forget(self, key: ResultKey) -> None:
        """Others may still be reading what the ranks of a machine share."""

    def checkpoint(self, key: ResultKey) -> AbstractContextManager[WorkingFile]:
        if self._writes:
            return super().checkpoint(key)
        return nullcontext(WorkingFile(self._checkpoint(key), lambda: None))

    def _checkpoint(self, key: ResultKey) -> Path:
        return self._nowhere.folder / f"{key.id}.checkpoint"


def _shapes(path: Path) -> dict[str, list[int]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
