"""How much memory a worker needs, and where a model of that size can be held: by the model of bytes that workers take
their budgets from (`editors.core.memory`), and made of configurations alone.

    weights  parameters, in the model's dtype
    held     what an editor, a training or a statistics task holds all the time: factors of second moments, networks
    at work  what it takes at least on top: the larger of one edit, of what is made beforehand, and of 1,024 tokens of
             questions; and the states that are kept between questions
    process  libraries, and the device's own

More edits and tokens are done at once where a device has more. A gang of k holds a k-th of the weights on each device,
and two whole blocks in turn; all else is whole on each. Offloaded, the weights lie in the host's memory. A tenth of a
device is left free.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.campaign.spec import WorkerSpec
from cluster.plan.refs import ModelRef
from cluster.plan.tasks import ScoreTask, StatisticsTask, StreamTask, Task, TrainTask, ValuesTask
from editors import get_editor
from editors.core.memory import ANSWER, GIB, KEPT_STATES, PROMPT, TEXT_TOKENS, USABLE, Bytes, Needs

REFERENCE = 32.0  # GiB: a V100
TOKENS = 1024
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # of a number
PROCESS = GIB // 2
GANGS = (2, 4, 8)  # devices of one machine


@dataclass(frozen=True)
class Memory:
    """Bytes. `block` is what a gang gathers at a time."""

    weights: int
    block: int
    held: int
    work: int

    @property
    def beside(self) -> int:
        """All but the weights."""
        return self.held + self.work + PROCESS

    def on_each(self, devices: int = 1, offload: str = "none") -> int:
        """On each of so many devices."""
        if devices == 1 and offload == "none":
            return self.weights + self.beside
        return (self.weights // devices if offload == "none" else 0) + self.block + self.beside

    def placement(self, memory: float) -> str:
        """Where it can be held, with so many GiB on a device."""
        usable = USABLE * memory * GIB
        if self.on_each() <= usable:
            return "one device"
        for devices in GANGS:
            if self.on_each(devices) <= usable:
                return f"gang of {devices} (devices: {devices})"
        if self.on_each(offload="cpu") <= usable:
            return "offload (offload: cpu)"
        return "nowhere: without the weights it needs more than a device has"

    def complaint(self, model: str, spec: WorkerSpec) -> str | None:
        """What to change where the campaign's workers cannot hold it."""
        memory = spec.memory or REFERENCE
        needed = self.on_each(spec.devices, spec.offload)
        if needed <= USABLE * memory * GIB:
            return None
        return (f"{model} needs about {needed / GIB:.0f} GiB on each device of a worker, and there are {memory:g} "
                f"(workers: devices {spec.devices}, offload {spec.offload}); what would hold it: "
                f"{self.placement(memory)}")


def memory_of(model: ModelRef, tasks: Iterable[Task]) -> Memory:
    """What a worker needs at least that runs these tasks of one model."""
    of = Bytes(model.shape, BYTES[model.dtype])
    asking = TOKENS * of.asked(ANSWER / PROMPT)
    needs = {(each.held, max(each.loading, each.edit, each.each, asking))
             for each in [Needs(), *(needs_of(task, of) for task in tasks if task.model.key == model.key)]}
    held, work = max(needs, key=sum)
    deepest = max(model.shape.depth, model.shape.encoder)  # a token is read by one stack
    return Memory(of.weights, 2 * of.weights // deepest, int(held), int(work) + KEPT_STATES)


def needs_of(task: Task, of: Bytes) -> Needs:
    """What a task takes beside the model."""
    match task:
        case StatisticsTask():
            return Needs(held=len(task.layers) * of.moment, loading=of.moment / 8 + TEXT_TOKENS * of.passing)
        case TrainTask() if not task.shipped:
            method = get_editor(task.editor.name)
            return method.training_needs(method.Config.model_validate(task.editor.config), of)
        case ScoreTask() | StreamTask() | ValuesTask():
            method = get_editor(task.method.editor.name)
            facts = task.count if isinstance(task, ScoreTask) and task.protocol.joint else 1
            return method.needs(method.Config.model_validate(task.method.editor.config), of, facts)
    return Needs()
