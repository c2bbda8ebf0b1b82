"""Facts that trained methods practise on."""

from __future__ import annotations

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
