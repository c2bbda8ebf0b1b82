"""Facts that trained methods practise on."""

from __future__ import annotations

import random
from dataclasses import dataclass

from editors.core.requests import EditRequest


@dataclass(frozen=True)
class Question:
    """A prompt and the answer teacher-forced after it."""

    prompt: str
    target: str


@dataclass(frozen=True)
class Example:
    """An edit to practise; `paraphrases` ask for the same new answer, `unchanged` what must be answered as before."""

    request: EditRequest
    paraphrases: tuple[str, ...] = ()
    unchanged: tuple[Question, ...] = ()

    def sample_unchanged(self, count: int, rng: random.Random) -> list[Question]:
        """`count` of `unchanged`; all of them where there are fewer."""
        return rng.sample(self.unchanged, min(count, len(self.unchanged)))
