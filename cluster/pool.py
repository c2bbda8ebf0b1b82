"""Workers on Ray: on a cluster that is already there, or on a local one that lives as long as the campaign runs."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.campaign import WorkerSpec
from cluster.state import Event, TaskDone, TaskFailed, WorkerLost, WorkerUp
from cluster.store import Store
from cluster.work import Task
from editors.core.errors import InputError

LOCAL_OBJECT_STORE = 128 << 20  # bytes; a task on its way to a worker is some hundred KB
CONNECT_TIMEOUT = 10.0  # seconds; Ray itself tries for many minutes


@contextmanager
def ray_pool(store: Store, spec: WorkerSpec, address: str | None = None) -> Iterator[RayPool]:
    """Workers on the cluster at `address` (or RAY_ADDRESS, or one this process is connected to); else on a local one.

    What was started here ends with the block. Raises `InputError` for a cluster that cannot be reached, or one without
    room for a single worker.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else a local cluster leaves a token in the home folder
    import ray

    ours = not ray.is_initialized()
    if ours:
        _connect(spec, address)
    if spec.gpus is None:
        spec = spec.model_copy(update={"gpus": float(_total("GPU") > 0)})
    pool = RayPool(store, spec)
    try:
        # A count asked of a remote cluster may be a demand on its autoscaler, so only there it need not fit yet.
        if not pool.room and (address is None or spec.count is None):
            times = f"{spec.devices} times " if spec.devices > 1 else ""
            raise InputError(f"no node has room for a worker of {times}{spec.cpus} CPUs and {spec.gpus} GPUs; the "
                             f"cluster has {_total('CPU'):g} CPUs and {_total('GPU'):g} GPUs in all. Change `workers` "
                             "in the campaign")
        with _terminable():
            yield pool
    finally:
        pool.close()
        if ours:
            ray.shutdown()


def _connect(spec: WorkerSpec, address: str | None) -> None:
    import ray

    if address is None:
        cpus = max(os.cpu_count() or 1, spec.cpus * spec.devices * (spec.count or 1))
        ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=LOCAL_OBJECT_STORE,
                 log_to_driver=False, logging_level=logging.ERROR)
        return
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdigit():
            socket.create_connection((host.removeprefix("ray://"), int(port)), CONNECT_TIMEOUT).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(f"cannot connect to Ray at '{address}': {error}") from error


@contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM, which `ray job stop` sends, end the block as Ctrl-C does; Ray's own handler aborts the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


def _total(resource: str) -> float:
    import ray

    return float(ray.cluster_resources().get(resource, 0))


class RayPool:
    """A pool of `Worker` actors. It alone knows Ray handles; outside, a worker is a number."""

    def __init__(self, store: Store, spec: WorkerSpec) -> None:
        self._store, self._spec = store, spec
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, tuple[int, str | None]] = {}  # object ref -> worker and its task (None: starting up)

    @property
    def room(self) -> int:
        """How many workers fit on the nodes there are now."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return sum(self._fit(resources) for resources in nodes) // self._spec.devices

    def _fit(self, resources: dict[str, float]) -> int:
        by_cpu = resources.get("CPU", 0) // self._spec.cpus
        return int(min(by_cpu, resources.get("GPU", 0) // self._spec.gpus) if self._spec.gpus else by_cpu)

    @property
    def size(self) -> int:
        return self._spec.count or self.room

    def start(self, worker: int) -> None:
        from cluster.worker import worker_class

        actor, options = worker_class(self._spec)
        self._actors[worker] = actor.options(**options).remote(self._store.root, self._spec)
        self._calls[self._actors[worker].ready.remote()] = (worker, None)

    def assign(self, worker: int, task: Task) -> None:
        self._calls[self._actors[worker].run.remote(task)] = (worker, task.id)

    def wait(self) -> list[Event]:
        import ray

        ready, _ = ray.wait(list(self._calls), num_returns=1)
        return [self._event(call) for call in ready]

    def _event(self, call: Any) -> Event:
        import ray

        worker, task = self._calls.pop(call)
        try:
            error = ray.get(call)
        except ray.exceptions.RayError as lost:
            self._end(self._actors.pop(worker))  # it may only be cut off: then it must not go on writing
            return WorkerLost(worker, str(lost))
        if task is None:
            return WorkerUp(worker)
        return TaskDone(worker, task) if error is None else TaskFailed(worker, task, error)

    def close(self) -> None:
        """Ends all workers, whatever they are doing."""
        for actor in self._actors.values():
            self._end(actor)
        self._actors, self._calls = {}, {}

    def _end(self, actor: Any) -> None:
        from cluster.worker import end_worker

        end_worker(actor, self._spec)
