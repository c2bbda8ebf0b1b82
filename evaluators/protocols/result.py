"""What a protocol makes of some cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evaluators.cases import Skipped
from evaluators.scoring.metrics import Score


@dataclass(frozen=True)
class ProtocolResult:
    """Scores, the cases that have none, and what it cost.

    Seconds are wall time with the device synchronised. `peak_memory` is in bytes: of `device` memory since the
    protocol began, or on a CPU the resident set of the `process` since it started.
    """

    scores: list[Score]
    failed: list[Skipped]
    seconds_edit: float
    seconds_score: float
    peak_memory: int
    memory_of: Literal["device", "process"]
