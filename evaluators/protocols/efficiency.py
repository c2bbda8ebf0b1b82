"""What edits cost, measured by themselves: time and memory as Yao et al. 2023, table 4 and figure 5, but synchronised,
warmed up, repeated, and in a process of their own on a device that nothing else uses.

Counted is the way from requests to patches on the device. What is done once for many edits has phases of its own in the
provenance: loading, second moments, training; and factoring these moments, which comes with making the editor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from editors.core.settings import Name
from evaluators.cases import Case, Skipped
from evaluators.metering.spent import Costs, Spent, in_turn
from evaluators.protocols.base import Piece, Protocol
from evaluators.protocols.result import ProtocolResult
from evaluators.scoring.measures import NOTHING_MORE, Measures
from evaluators.scoring.metrics import Score

if TYPE_CHECKING:
    import torch

    from editors.core.editor import Editor
    from evaluators.metering.meter import Meter
    from evaluators.scoring.observe import Observation

SPARE = 8  # cases beyond those needed, for some that the model cannot read
ENOUGH = 2.0  # seconds over which a device's energy is taken: its counter moves ten times a second
FEWER = 2  # repeats of what takes long


class EfficiencyProtocol(Protocol):
    """Makes the same few edits again and again, and keeps what each time cost. Nothing is scored."""

    name = "efficiency"
    version = 1
    together = False
    scored = False
    alone = True

    edits: PositiveInt = 10
    """How many edits are timed together: the first cases that the model can read (Yao et al. 2023, table 4)."""
    warm_up: NonNegativeInt = 2
    """How many other edits are made before, one at a time. Ours."""
    repeats: PositiveInt = 5
    """How often all are made; every value is kept. Ours."""
    slow: NonNegativeFloat = Field(1200.0, allow_inf_nan=False)
    """Seconds of the first time after which two are enough. Ours."""
    device: Name | None = None
    """The device that it is for, by any part of its name, such as `V100`; another is refused. Without it whatever
    device comes first is measured, and no other one after."""

    @property
    def counts(self) -> tuple[int, ...]:
        return (self.edits,)

    @property
    def cases_needed(self) -> int:
        return self.edits + self.warm_up

    def how(self, count: int) -> str:
        return f", cost of {count} edits"

    def pieces(self, cases: int, chunk: int) -> Iterator[Piece]:
        yield Piece(0, min(cases, self.edits + self.warm_up + SPARE), self.edits)

    def unit(self, count: int) -> int:
        return count + self.warm_up + SPARE

    def times(self, count: int) -> int:
        return 2 * self.repeats * count + self.warm_up

    def run(self, editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation], count: int,
            measures: Measures = NOTHING_MORE) -> ProtocolResult:
        """A score for each repeat, under the metrics of this file. Cases that cannot be read are in `failed`. Raises
        `InputError` where fewer are left than are to be edited, and whatever the editor raises."""
        from editors.core.errors import InputError
        from evaluators.scoring.usable import unusable

        failed = unusable(editor.model, cases)
        known = {case.case_id for case in failed}
        sound = [case for case in cases if case.id not in known]
        if len(sound) < count + self.warm_up:
            raise InputError(f"of the first {len(cases)} cases the model can read {len(sound)}, and {count} edits with "
                             f"{self.warm_up} to warm up take more; take fewer 'edits'")
        return self._measured(editor, sound[:count], sound[count: count + self.warm_up], failed)

    def _measured(self, editor: Editor, cases: Sequence[Case], others: Sequence[Case],
                  failed: list[Skipped]) -> ProtocolResult:
        device = editor.model.device
        found = _Costs(partial(new_meter, device))
        requests, warming = [[case.request() for case in part] for part in (cases, others)]

        def singly() -> None:
            for request in requests:
                editor.edit_each([request])

        for number, request in enumerate(warming):
            spent = found.spent(partial(editor.edit_each, [request]))
            if not number:
                found.add("cost.seconds.cold", 1, spent.seconds)
        repeat, repeats = 0, self.repeats
        while repeat < repeats:
            repeat += 1
            spent = found.spent(singly)
            found.single(repeat, spent)
            found.add("cost.seconds.chunked", repeat, found.spent(partial(editor.edit_each, requests)).seconds)
            if spent.seconds > self.slow:
                repeats = min(repeats, FEWER)
        if device.type == "cuda":
            found.of_a_gpu(singly, repeats)
        return ProtocolResult(found.scores, failed, found.costs)


def new_meter(device: torch.device) -> Meter:
    """What one stretch of edits is measured with."""
    from evaluators.metering.meter import Meter

    return Meter(device, tidy=True)


class _Costs:
    """The scores of one run, and what all of it cost."""

    def __init__(self, meter: Callable[[], Meter]) -> None:
        self._meter = meter
        self.scores: list[Score] = []
        self.costs: Costs = {}

    def spent(self, work: Callable[[], object]) -> Spent:
        """What doing this costs."""
        meter = self._meter()
        with meter.phase("edit"):
            work()
        self.costs = in_turn([self.costs, meter.costs])
        return meter.costs["edit"]

    def add(self, metric: str, repeat: int, value: float | None) -> None:
        if value is not None:
            self.scores.append(Score(f"repeat {repeat}", "", metric, float(value)))

    def single(self, repeat: int, spent: Spent) -> None:
        memory = spent.memory
        self.add("cost.seconds", repeat, spent.seconds)
        self.add("cost.flops", repeat, spent.flops)
        for name in ("device", "allocated", "reserved", "rss"):
            self.add(f"cost.memory.{name}", repeat, getattr(memory, name))
        if memory.allocated is not None and memory.allocated_before is not None:
            self.add("cost.memory.excess", repeat, memory.allocated - memory.allocated_before)

    def of_a_gpu(self, singly: Callable[[], None], repeats: int) -> None:
        """What only a GPU tells: energy, and what it costs that its sums come in one order."""
        import torch

        busy, times = self.spent(singly), 1
        while busy.seconds < ENOUGH:
            busy, times = busy.then(self.spent(singly)), times + 1
        idle = self.spent(partial(time.sleep, ENOUGH))
        if busy.joules is not None and idle.joules is not None:
            self.add("cost.joules", 1, max(busy.joules - idle.joules / idle.seconds * busy.seconds, 0.0) / times)
        determined = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        try:
            for repeat in range(1, repeats + 1):
                self.add("cost.seconds.undetermined", repeat, self.spent(singly).seconds)
        finally:
            torch.use_deterministic_algorithms(determined, warn_only=True)
