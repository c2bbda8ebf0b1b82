"""Where a freely written answer ends, and when two answers are the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluators.texts import bare_answer


def stops(text: str, stop: Sequence[str]) -> list[tuple[int, int]]:
    """Where each of the stop texts in a text starts and ends, from the left; of those that start together the longest
    counts."""
    longest_first = "|".join(map(re.escape, sorted(stop, key=len, reverse=True)))
    return [found.span() for found in re.finditer(longest_first, text)] if stop else []


def cut(text: str, target: str, stop: Sequence[str]) -> str:
    """A generated text up to its first stop.

    A target may hold stop texts itself ("St. Louis") or end in one ("Acme Inc."): as many may be passed over where what
    comes before the next, or the text's end, is the target.
    """
    text = text.strip()
    found, passed = stops(text, stop), len(stops(target, stop))
    ends = [end for span in found[: passed + 1] for end in span] + ([len(text)] if len(found) <= passed else [])
    first = found[0][0] if found else len(text)
    return text[: next((end for end in ends if same_answer(text[:end], target)), first)].rstrip()


def same_answer(left: str, right: str) -> bool:
    """Whether two answers are equal but for case, punctuation, articles and white space."""
    return bare_answer(left) == bare_answer(right)
