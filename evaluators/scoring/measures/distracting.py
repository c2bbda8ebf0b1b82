"""Whether an edit that is mentioned draws other answers to itself."""

from __future__ import annotations

from typing import ClassVar

from evaluators.cases import Role
from evaluators.scoring.measures.base import Measure
from evaluators.scoring.metrics import LOCALITY, Metric, kinds


class Distracting(Measure):
    """Asks the neighbourhood's questions again, each with the edit as a sentence before it."""

    name = "distracting"
    version = 1
    of_baseline = True
    roles: ClassVar[tuple[Role, ...]] = ("distracting",)
    metrics: ClassVar[tuple[Metric, ...]] = tuple(kinds(*LOCALITY["distracting"], "agreement"))
