"""Meters the phases of a task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from editors.core.models.work import DONE
from evaluators.metering.instruments import Instruments, instruments
from evaluators.metering.spent import Costs, Memory, Phase, Spent, in_turn


class _Start(NamedTuple):
    seconds: float
    tokens: int
    flops: float
    joules: float | None
    memory: Memory


class Meter:
    """Adds up what the phases cost that are entered on one device.

    A phase inside another stops the outer one for as long as it lasts, so that no second counts twice.
    """

    def __init__(self, device: torch.device, reads: Instruments | None = None, *, tidy: bool = False) -> None:
        """`tidy` has memory that is not used any more given back before each phase, which takes time of its own."""
        self._reads, self._tidy = reads or instruments(device), tidy
        self._costs: dict[Phase, Spent] = {}
        self._open: list[Phase] = []
        self._start = _Start(0.0, 0, 0.0, None, Memory())

    @property
    def costs(self) -> dict[Phase, Spent]:
        """Of all phases that have ended."""
        return dict(self._costs)

    def add(self, costs: Costs) -> None:
        """Adds what was metered elsewhere."""
        self._costs = in_turn([self._costs, costs])

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Meters the block."""
        self._stop()
        self._open.append(phase)
        self._begin()
        try:
            yield
        finally:
            self._stop()
            self._open.pop()
            self._begin()

    def _begin(self) -> None:
        if self._open:
            if self._tidy:
                self._reads.tidy()
            memory, joules = self._reads.reset(), self._reads.joules()
            self._start = _Start(self._reads.now(), DONE.tokens, DONE.flops, joules, memory)

    def _stop(self) -> None:
        if not self._open:
            return
        start, seconds, joules = self._start, self._reads.now() - self._start.seconds, self._reads.joules()
        used = None if start.joules is None or joules is None else max(joules - start.joules, 0.0)
        spent = Spent(seconds=max(seconds, 0.0), tokens=DONE.tokens - start.tokens, flops=DONE.flops - start.flops,
                      joules=used, memory=self._reads.peak(start.memory))
        self.add({self._open[-1]: spent})
