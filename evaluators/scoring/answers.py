"""Where a freely written answer ends, and when two answers are the same."""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.texts import bare_answer


def cut(text: str, target: str, stop: Sequence[str]) -> str:
    """A generated text up to its first stop; a stop inside the target, which the text begins with, is none."""
    text = text.strip()
    start = len(target) if text.startswith(target) else 0
    ends = [place for each in stop if (place := text.find(each, start)) >= 0]
    return text[: min(ends, default=len(text))].rstrip()


def same_answer(left: str, right: str) -> bool:
    """Whether two answers are equal but for case, punctuation, articles and white space."""
    return bare_answer(left) == bare_answer(right)
