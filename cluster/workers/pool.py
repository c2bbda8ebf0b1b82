"""Workers on Ray: on a cluster that is already there, or on a local one that lives as long as the campaign runs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

from cluster.campaign.spec import WorkerSpec
from cluster.exporter.gauges import WorkerMemory
from cluster.log import log_event
from cluster.plan.tasks import Task
from cluster.scheduler.events import (
    OutOfMemory,
    ResultDamaged,
    TaskDone,
    TaskFailed,
    WorkerEvent,
    WorkerLost,
    WorkerUp,
)
from cluster.store.store import Store
from cluster.workers.interrupts import interrupted_by
from cluster.workers.losses import ClusterLost, loss_of
from cluster.workers.version import code_version
from editors.core.errors import InputError

GLANCE = 0.5  # seconds for which what is known of the nodes holds: asking takes long where there are many


@contextmanager
def ray_pool(store: Store, spec: WorkerSpec, address: str | None = None) -> Iterator[RayPool]:
    """Workers on the cluster at `address` (or RAY_ADDRESS, or one this process is connected to); else on a local one.

    What was started here ends with the block. Raises `InputError` for a cluster that cannot be reached, or one without
    room for a single worker.
    """
    import ray

    from cluster.workers.connect import joined_ray, started_ray

    address = address or os.environ.get("RAY_ADDRESS")
    with ExitStack() as stack:
        if not ray.is_initialized():
            stack.enter_context(started_ray(spec) if address is None else joined_ray(address))
        if spec.gpus is None:
            spec = spec.model_copy(update={"gpus": float(_total("GPU") > 0)})
        pool = stack.enter_context(closing(RayPool(store, spec)))
        # A count asked of a remote cluster may be a demand on its autoscaler, so only there it need not fit yet.
        if not pool.fit and (address is None or spec.count is None):
            times = f"{spec.devices} times " if spec.devices > 1 else ""
            raise InputError(f"no node has room for a worker of {times}{spec.cpus} CPUs and {spec.gpus} GPUs; the "
                             f"cluster has {_total('CPU'):g} CPUs and {_total('GPU'):g} GPUs in all. Change `workers` "
                             "in the campaign")
        # `ray job stop` sends SIGTERM, for which Ray's own handler aborts the process. And what a handler raises is
        # lost where Ray's own code was being run, so that the pool is told as well.
        with interrupted_by(signal.SIGINT, signal.SIGTERM, told=pool.interrupted.set):
            yield pool


def _total(resource: str) -> float:
    import ray

    return float(ray.cluster_resources().get(resource, 0))


class RayPool:
    """A pool of `Worker` actors. It alone knows Ray handles; outside, a worker is a number.

    Workers that come up with other code than this process has are turned away, and none is started on their node again.
    """

    def __init__(self, store: Store, spec: WorkerSpec) -> None:
        import ray

        from cluster.workers.control import Control
        from cluster.workers.memory import MemoryWatch
        from cluster.workers.parcels import Packing

        self._store, self._spec = store, spec
        self.interrupted = threading.Event()
        #: The actor of every worker that was started and is not known to be lost.
        self._actors: dict[int, Any] = {}
        #: The node of each of these, as far as it is known.
        self._node_of: dict[int, str] = {}
        #: Nodes that run other code.
        self._refused: set[str] = set()
        #: Ray's references to answers that are not there yet: from which worker, and about which task, or about coming
        #: up. At most one per worker.
        self._calls: dict[Any, tuple[int, str | None]] = {}
        #: Those of them that are answered, as Ray's own thread tells: asking about a thousand takes milliseconds.
        self._answered: SimpleQueue[tuple[Any, Future[Any]]] = SimpleQueue()
        self._packing = Packing(ray.put)
        self._control = Control()
        self._memory = MemoryWatch()
        #: The nodes that are alive, as they were when the cluster was last asked.
        self._nodes: list[dict[str, Any]] = []
        self._asked = -GLANCE
        #: Whether the cluster is gone: nothing can be asked of it any more.
        self._gone = False
        #: Whether a worker has come up: what keeps another from it then may pass, and does not end the campaign.
        self._proven = False

    @property
    def room(self) -> int:
        """How many workers there can be: as many as are asked for, or fit on the nodes there are now.

        Raises `ClusterLost` where the cluster is gone."""
        fit = self.fit
        return self._spec.count or fit

    @property
    def on_gpu(self) -> bool:
        return bool(self._spec.gpus)

    @property
    def fit(self) -> int:
        """How many workers the nodes that there are could hold, were they empty. The ranks of a gang may spread."""
        return sum(self._fits().values()) // self._spec.devices

    def _fits(self) -> dict[str, int]:
        """How many workers, or ranks, each node could hold. Raises `ClusterLost` where the cluster is gone."""
        if time.monotonic() - self._asked >= GLANCE:
            self._look()
        return {node["NodeID"]: self._fit(node["Resources"]) for node in self._nodes
                if node["NodeID"] not in self._refused}

    def _look(self) -> None:
        """Asks for the nodes anew; while nobody can tell, they are the same. Raises `ClusterLost`."""
        try:
            nodes = self._control.nodes()
        except ClusterLost:
            self._gone = True
            raise
        self._nodes, self._asked = self._nodes if nodes is None else nodes, time.monotonic()

    def _fit(self, resources: dict[str, float]) -> int:
        by_cpu = resources.get("CPU", 0) // self._spec.cpus
        return int(min(by_cpu, resources.get("GPU", 0) // self._spec.gpus) if self._spec.gpus else by_cpu)

    def start(self, worker: int) -> None:
        """Begins to start a worker, on the emptiest node; `wait` says when it is up. Where none has room, Ray is left
        to find one, which asks an autoscaler for it. A gang reserves its own."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from cluster.workers.worker import worker_class

        taken = Counter(self._node_of.values())
        free = {node: fit - taken[node] for node, fit in self._fits().items()}
        node = max(free, key=lambda node: free[node], default=None)
        actor, options = worker_class(self._spec)
        if node is not None and free[node] > 0 and not self._spec.is_gang:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
            self._node_of[worker] = node
        self._actors[worker] = actor.options(**options).remote(self._store.root, self._spec)
        self._await(self._actors[worker].ready.remote(), worker, None)

    def retire(self, worker: int) -> None:
        """Ends a worker, whatever it is doing."""
        from cluster.workers.worker import end_worker

        self._node_of.pop(worker, None)
        self._calls = {ref: call for ref, call in self._calls.items() if call[0] != worker}
        end_worker(self._actors.pop(worker), self._spec)

    def assign(self, worker: int, task: Task, parts: int) -> None:
        """Begins a task on a worker that is up and at none."""
        parcel = self._packing.pack(task)
        self._await(self._actors[worker].run.remote(parcel.task, parts, *parcel.cases), worker, task.id)

    def _await(self, ref: Any, worker: int, task: str | None) -> None:
        self._calls[ref] = worker, task
        ref.future().add_done_callback(lambda answer: self._answered.put((ref, answer)))

    def wait(self, seconds: float) -> list[WorkerEvent]:
        """What has happened; blocks until something has, but not for longer than this. Raises `KeyboardInterrupt` once
        this process was told to end, and `ClusterLost`."""
        if self.interrupted.is_set():
            raise KeyboardInterrupt
        answered = []
        with suppress(Empty):
            answered.append(self._answered.get(timeout=seconds))
            while True:
                answered.append(self._answered.get_nowait())
        return [event for answer in answered if (event := self._event(*answer))]

    def _event(self, ref: Any, answered: Future[Any]) -> WorkerEvent | None:
        import ray

        from cluster.workers.control import is_gone

        if ref not in self._calls:
            return None  # of a worker that was lost a moment ago
        worker, task = self._calls.pop(ref)
        try:
            answer = answered.result()
        except ray.exceptions.RayError as lost:
            self._look()  # a node that has just died may have taken the worker with it
            loss = loss_of(lost, is_gone(self._node_of.get(worker), self._nodes))
            self.retire(worker)  # it may only be cut off: then it must not go on writing
            if not self._proven and isinstance(cause := getattr(lost, "cause", None), InputError):
                raise cause from lost
            return WorkerLost(worker, *loss)
        if task is None:
            return self._welcome(worker, answer)
        if answer.memory is not None:
            self._memory.told(worker, answer.memory)
        match answer.outcome:
            case "done":
                return TaskDone(worker, task, answer.seconds, answer.account)
            case "out of memory":
                return OutOfMemory(worker, task, answer.detail)
            case "damaged":
                return ResultDamaged(worker, task, answer.damaged, answer.detail)
        return TaskFailed(worker, task, answer.detail)

    def _welcome(self, worker: int, arrival: Any) -> WorkerEvent:
        if arrival.code == code_version():
            log_event("worker-up", worker=worker, host=arrival.host, pid=arrival.pid, node=arrival.node)
            self._node_of[worker] = arrival.node
            self._proven = True
            return WorkerUp(worker)
        self._refused.add(arrival.node)
        self.retire(worker)
        reason = (f"host '{arrival.host}' has another version: {arrival.code}; here it is {code_version()}. Install "
                  "the same there")
        if not self.fit:
            raise InputError(f"no node can be used: {reason}")
        return WorkerLost(worker, reason, refused=True)

    def memory(self) -> Mapping[int, WorkerMemory]:
        """What workers use, as they told when last asked; does not wait for any. Who leads a gang uses nothing."""
        return {} if self._spec.is_gang else self._memory.latest(self._actors)

    def close(self) -> None:
        """Ends all workers, whatever they are doing. They end with their cluster, too."""
        if self._gone:
            return
        for worker in list(self._actors):
            self.retire(worker)
