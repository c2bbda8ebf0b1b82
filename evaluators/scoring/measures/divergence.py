"""How far an edit moves what the model says where it should change nothing."""

from __future__ import annotations

from typing import ClassVar

from evaluators.cases import Role
from evaluators.scoring.measures.base import Measure
from evaluators.scoring.metrics import LOCALITY, Metric


class Divergence(Measure):
    """KL divergence of the edited from the unedited model's distribution at every locality probe."""

    name = "kl"
    version = 1
    of_baseline = True  # a baseline's own divergence is 0
    compared: ClassVar[tuple[Role, ...]] = ("neighbourhood", "attributes", "unrelated", "distracting")
    metrics = tuple(Metric(f"{where}.kl", f"KL(unedited || edited) at {what}, mean over the answer's tokens", "nats",
                           "lower") for where, what in LOCALITY.values())
