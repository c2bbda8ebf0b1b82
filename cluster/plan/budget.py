"""What a plan costs on devices that nobody has yet: device-hours by editor and model, and how its models are placed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cluster.campaign.spec import WorkerSpec
from cluster.plan import costs
from cluster.plan.devices import Devices
from cluster.plan.forecast import longest_chain
from cluster.plan.memory import GANGS, Memory, memory_of
from cluster.plan.planner import Plan
from cluster.plan.refs import digest
from cluster.plan.tasks import MomentsTask, ScoreTask, StreamTask, Task, TrainTask, ValuesTask
from editors.core.errors import InputError
from editors.core.memory import GIB, USABLE


class Group(NamedTuple):
    """What device-hours are summed up by: an editor as tables call it, its training, or what editors share; a model."""

    work: str
    model: str


class Placement(NamedTuple):
    """How a worker holds its model. `chosen`: by the plan, as the campaign leaves it open."""

    devices: int
    offload: str
    chosen: bool

    def __str__(self) -> str:
        return f"devices: {self.devices}" + (f", offload: {self.offload}" if self.offload != "none" else "")


@dataclass(frozen=True)
class Budget:
    """Device-hours of what is left of a plan, and the hours that it takes on `workers`, at the best: its tasks shared
    out evenly, and no less than the longest chain of them."""

    placement: Placement
    workers: int
    by_group: Mapping[Group, float]
    hours: float
    chain: float

    @property
    def total(self) -> float:
        return sum(self.by_group.values())

    def largest(self, count: int) -> list[tuple[Group, float]]:
        """The groups that take most, each with its share."""
        order = sorted(self.by_group.items(), key=lambda item: -item[1])
        return [(group, hours / self.total) for group, hours in order[:count] if hours]


def budget(plan: Plan, devices: Devices, left: Mapping[str, float]) -> Budget:
    """What the tasks in `left` cost. Raises `InputError` where these devices cannot hold a model, or not compute in its
    dtype."""
    for model in plan.models.values():
        devices.device.rate(model.dtype)
    placement = place(plan, devices)
    seconds = {id: seconds_on(plan.tasks[id], devices) for id in left}
    titles = {_method(task): task.editor_title for task in plan.tasks.values() if isinstance(task, ScoreTask)}
    by_group: dict[Group, float] = defaultdict(float)
    for id, taken in seconds.items():
        by_group[_group(plan, id, titles)] += taken * placement.devices / 3600
    workers = devices.count // placement.devices
    if plan.campaign.workers.count is not None:
        workers = min(workers, plan.campaign.workers.count)
    chain = longest_chain(plan.tasks.values(), seconds) / 3600
    return Budget(placement, workers, by_group, max(sum(seconds.values()) / 3600 / workers, chain), chain)


def seconds_on(task: Task, devices: Devices) -> float:
    """What a task takes on one of these. What is no computation takes as long as ever."""
    if isinstance(task, MomentsTask) or (isinstance(task, TrainTask) and task.shipped):
        return task.cost
    return task.cost * costs.rate(task.model.shape) / devices.device.rate(task.model.dtype)


def _group(plan: Plan, id: str, titles: Mapping[str, str]) -> Group:
    task, model = plan.tasks[id], plan.labels(id).model
    match task:
        case ScoreTask():
            return Group(task.editor_title, model)
        case StreamTask() | ValuesTask():
            return Group(titles[_method(task)], model)
        case TrainTask():
            return Group(f"training of {task.editor.name}", model)
    return Group("second moments" if task.kind in ("statistics", "moments") else "unedited model", model)


def _method(task: ScoreTask | StreamTask | ValuesTask) -> str:
    return digest([task.model.key, task.method.identity()])


def place(plan: Plan, devices: Devices) -> Placement:
    """The campaign's own, or where it has none the first that holds all of its models: one device, a gang of as few as
    will do, and else with weights in main memory. A campaign's workers are alike, so that the largest model decides."""
    spec = plan.campaign.workers
    needs = {name: memory_of(model, plan.tasks.values()) for name, model in plan.models.items()}
    if {"devices", "offload"} & spec.model_fields_set:
        _check_own(plan, spec, needs, devices)
        return Placement(spec.devices, spec.offload, chosen=False)
    possible = [(1, "none"), *((gang, "none") for gang in GANGS if gang <= devices.count), (1, "cpu")]
    for gang, offload in possible:
        if all(_fits(need, gang, offload, devices) for need in needs.values()):
            return Placement(gang, offload, chosen=True)
    name = max(needs, key=lambda name: needs[name].on_each(offload="cpu"))
    least = needs[name].on_each(offload="cpu")
    raise InputError(f"{name} ({plan.models[name].dtype}) needs about {least / GIB:.0f} GiB on a device even without "
                     f"its weights, and {_there(devices)}. Take devices with more memory"
                     + _smaller(plan.models[name].dtype))


def _check_own(plan: Plan, spec: WorkerSpec, needs: Mapping[str, Memory], devices: Devices) -> None:
    if spec.devices > devices.count:
        raise InputError(f"a worker of this campaign takes 'devices: {spec.devices}', and {devices} are "
                         f"{devices.count}; lower it, or name more")
    for name, need in needs.items():
        if not _fits(need, spec.devices, spec.offload, devices):
            needed = need.on_each(spec.devices, spec.offload) / GIB
            raise InputError(
                f"{name} ({plan.models[name].dtype}) needs about {needed:.0f} GiB on each device of a worker "
                f"(workers: devices {spec.devices}, offload {spec.offload}), and {_there(devices)}. "
                f"What would hold it: {need.placement(devices.device.memory)}"
                + _smaller(plan.models[name].dtype))


def _fits(need: Memory, gang: int, offload: str, devices: Devices) -> bool:
    return need.on_each(gang, offload) <= USABLE * devices.device.memory * GIB


def _there(devices: Devices) -> str:
    memory = devices.device.memory
    return f"{USABLE * memory:.0f} of the {memory:g} GiB of a {devices.device.name} can be used"


def _smaller(dtype: str) -> str:
    return ", or 'dtype: float16' or 'bfloat16' for the model" if dtype == "float32" else ""
