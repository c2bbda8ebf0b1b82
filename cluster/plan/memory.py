"""How much memory a worker needs, and where a model of that size can be held. Rough, and made of configurations alone.

    weights      parameters, in the model's dtype
    moments      second moments in fp64: the sums of a statistics task, or the factors that ROME and MEMIT solve with
    activations  of one pass of 1,024 tokens, about two edits of ROME, that keeps what a gradient needs: 8 widths and 2
                 inner widths a block, and the logits; or three more moments, which factoring one takes
    process      libraries, and the device's own

A gang of k holds a k-th of the weights on each device, and two whole blocks in turn; moments and activations are whole
on each. Offloaded, the weights lie in the host's memory. A tenth of a device is left free. What is trained (networks of
KE and MEND, their optimiser's state, SERAC's side model) is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.campaign.spec import WorkerSpec
from cluster.plan.costs import moments_bytes
from cluster.plan.refs import ModelRef
from cluster.plan.tasks import ScoreTask, StatisticsTask, StreamTask, Task

GIB = 2**30
REFERENCE = 32.0  # GiB: a V100
USABLE = 0.9  # of a device: allocators waste some
TOKENS = 1024
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # of a number
PROCESS = GIB // 2
GANGS = (2, 4, 8)  # devices of one machine


@dataclass(frozen=True)
class Memory:
    """Bytes. `block` is what a gang gathers at a time."""

    weights: int
    block: int
    moments: int
    activations: int

    @property
    def beside(self) -> int:
        """All but the weights."""
        return self.moments + self.activations + PROCESS

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
    """What a worker needs that runs these tasks of one model."""
    shape, size = model.shape, BYTES[model.dtype]
    weights = shape.parameters * size
    deepest = max(shape.depth, shape.encoder)  # a token is read by one stack
    kept = deepest * (8 * shape.width + 2 * shape.inner) + shape.vocabulary
    layers = max((_layers(task) for task in tasks if task.model.key == model.key), key=len, default=())
    return Memory(weights, 2 * weights // deepest, moments_bytes(shape, layers),
                  max(TOKENS * kept * size, 3 * moments_bytes(shape, layers[:1])))


def _layers(task: Task) -> tuple[int, ...]:
    """Whose second moments a task holds on its device."""
    if isinstance(task, StatisticsTask):
        return task.layers
    if isinstance(task, ScoreTask | StreamTask) and task.method.statistics:
        return task.method.statistics.layers
    return ()
