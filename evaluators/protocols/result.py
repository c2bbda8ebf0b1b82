"""What a protocol makes of some cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evaluators.cases import Skipped
from evaluators.metering.spent import Costs, in_turn
from evaluators.scoring.metrics import Score

if TYPE_CHECKING:  # planning loads no torch
    from evaluators.scoring.said import Asked


@dataclass(frozen=True)
class ProtocolResult:
    """Scores, the cases that have none, what editing and scoring cost, and what the scored cases were asked."""

    scores: list[Score]
    failed: list[Skipped]
    costs: Costs = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @staticmethod
    def joined(results: Sequence[ProtocolResult]) -> ProtocolResult:
        """What several pieces of one task gave, one after another, as one."""
        return ProtocolResult([score for result in results for score in result.scores],
                              [skipped for result in results for skipped in result.failed],
                              in_turn(result.costs for result in results),
                              [case for result in results for case in result.asked])
