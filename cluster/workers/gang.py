"""A gang: several processes, each with a device of its own, that hold one model and run every task together.

Each is a rank of a process group and holds a part of every weight (`zero3`). All run the same task on the same cases,
in lockstep; rank 0 alone writes, once all have come to one result. What could look different to two of them is decided
for all by who leads them.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.campaign.spec import WorkerSpec
from cluster.plan.tasks import Task
from cluster.store.store import Store
from cluster.workers.control import alive, is_gone, patiently
from cluster.workers.losses import GangLost, Loss, loss_of
from cluster.workers.rank import LOOPBACK, Rank, RankAddress
from cluster.workers.runner import TaskResult
from cluster.workers.version import code_version
from editors.core.errors import InputError

# Each weight comes and goes in blocks that malloc must give back, or a rank would seem to hold the whole model. And
# all are to walk sets in the same order.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144", "MALLOC_ARENA_MAX": "1",
               "PYTHONHASHSEED": "0"}
START_UP = 300.0  # seconds; ranks may come up one after another


class Gang:
    """Leads the ranks; a `Runner` like any other, until one of them dies, hangs or falls out of step. Then it is lost,
    with all its ranks, and raises `GangLost` from there on."""

    def __init__(self, store: str, spec: WorkerSpec) -> None:
        self._root, self._spec = store, spec
        self._store = Store.open(store)
        self._group: PlacementGroup | None = None
        self._ranks: list[Any] = []
        #: Of the ranks, in their order, once all have come up.
        self._addresses: list[RankAddress] = []
        #: Why there are no ranks any more.
        self._lost: GangLost | None = None

    def prepare(self) -> None:
        """Reserves room for all ranks, and starts them. Raises `InputError` where there is none in time, or none where
        the weights can be kept as the campaign wants."""
        self._group = reserve(self._spec)
        options = {"num_cpus": self._spec.cpus, "num_gpus": self._spec.gpus or 0,
                   "runtime_env": {"env_vars": ENVIRONMENT}}
        make = ray.remote(max_restarts=0, max_task_retries=0)(Rank)
        self._ranks = [make.options(**options, scheduling_strategy=PlacementGroupSchedulingStrategy(
            self._group, number)).remote(self._root, self._spec, number) for number in range(self._spec.devices)]
        self._addresses = self._all("arrive", patience=START_UP)
        for number, (host, _, code) in enumerate(self._addresses):
            if code != code_version():
                raise self._end(Loss(f"rank {number}, on {host}, has another version: {code}; rank 0's leader has "
                                     f"{code_version()}. Install the same there"))
        # Ranks trust whoever finds them: where they are of one machine, nobody else can.
        together = len({address.node for address in self._addresses}) == 1
        host = LOOPBACK if together else self._addresses[0].host
        port = ray.get(self._ranks[0].listen.remote(host))
        self._all("join", host, port, patience=START_UP)

    def run(self, task: Task, *arguments: Any) -> TaskResult:
        """Rank 0's result. Raises `GangLost`, once the ranks are gone, where they did not all fare alike."""
        if self._lost is not None:
            raise self._lost
        if self._store.has(task.key):
            return TaskResult("done")
        self._all("begin", task)
        results: list[TaskResult] = self._all("run", task, *arguments)
        outcomes = {result.outcome for result in results}
        if len(outcomes) == 1:
            if outcomes != {"done"}:
                self._all("meet")  # all failed: by the task's fault, or because they lost each other?
            return results[0]
        short = next((result for result in results if result.outcome == "out of memory"), None)
        reason = "the ranks of a gang fell out of step:\n" + "\n".join(
            f"rank {number}: {result.outcome} {result.detail}" for number, result in enumerate(results))
        lost = self._end(Loss(reason))
        if short is None:
            raise lost
        return short  # what to do about the task is known

    def _all(self, method: str, *arguments: Any, patience: float | None = None) -> list[Any]:
        """What every rank returns. Once one has, the others must within `patience`, or the time of a collective."""
        patience = patience or self._spec.timeout
        calls = [getattr(rank, method).remote(*arguments) for rank in self._ranks]
        waiting, deadline = calls, None
        while waiting:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            done, waiting = ray.wait(waiting, num_returns=1, timeout=left)
            if not done:
                numbers = ", ".join(str(calls.index(call)) for call in waiting)
                raise self._end(Loss(f"of {len(calls)} ranks, {numbers} did not answer within {patience:g} s of the "
                                     "others"))
            try:
                ray.get(done)
            except ray.exceptions.RayError as error:
                if isinstance(cause := getattr(error, "cause", None), InputError):
                    self._end(Loss(str(cause)))
                    raise cause from error
                number = calls.index(done[0])
                node = self._addresses[number].node if self._addresses else None
                loss = loss_of(error, is_gone(node, patiently(alive)))
                loss = loss._replace(reason=f"rank {number} of {len(calls)} is lost: {loss.reason}")
                raise self._end(loss) from error
            deadline = deadline or time.monotonic() + patience
        return ray.get(calls)

    def _end(self, loss: Loss) -> GangLost:
        """Ends all ranks, whatever they are doing. They would end with this process, too."""
        self._lost = GangLost(loss)
        for rank in self._ranks:
            ray.kill(rank)
        if self._group is not None:
            patiently(partial(remove_placement_group, self._group))
        self._ranks, self._group = [], None
        return self._lost


def group_of(actor_id: str | None) -> str:
    """The name of the placement group of the gang that an actor leads; none where no actor does."""
    return f"gang-{actor_id}" if actor_id else ""


def reserve(spec: WorkerSpec) -> PlacementGroup:
    """Room for every rank, on one node where one is large enough. Raises `InputError` where there is none in time."""
    share = {"CPU": float(spec.cpus), "GPU": float(spec.gpus or 0)}
    nodes = [node["Resources"] for node in alive()]
    one = any(all(node.get(name, 0) >= spec.devices * amount for name, amount in share.items()) for node in nodes)
    bundle = {name: amount for name, amount in share.items() if amount}
    group: PlacementGroup = placement_group([bundle] * spec.devices, "STRICT_PACK" if one else "PACK",
                                            name=group_of(ray.get_runtime_context().get_actor_id()))
    if group.wait(spec.placement_timeout):
        return group
    remove_placement_group(group)
    total, free = ray.cluster_resources(), ray.available_resources()
    has = " and ".join(f"{total.get(name, 0):g} {name}s ({free.get(name, 0):g} of them free)" for name in share)
    raise InputError(f"no room for a gang of {spec.devices} ranks with {share['CPU']:g} CPUs and {share['GPU']:g} GPUs "
                     f"each within {spec.placement_timeout} s; the cluster has {has} on {len(nodes)} nodes. Change "
                     "`workers` in the campaign: fewer 'devices', 'cpus' or 'gpus', or a longer 'placement_timeout'")
