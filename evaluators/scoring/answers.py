"""Where a freely written answer ends, and when two answers are the same."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def cut(text: str, target: str, stop: Sequence[str]) -> str:
    """A generated text up to its first stop; a stop inside the target, which the text begins with, is none."""
    text = text.strip()
    start = len(target) if text.startswith(target) else 0
    ends = [place for each in stop if (place := text.find(each, start)) >= 0]
    return text[: min(ends, default=len(text))].rstrip()


def same_answer(left: str, right: str) -> bool:
    """Whether two answers are equal but for case, punctuation, articles and white space."""
    return normalise(left) == normalise(right)


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and surplus white space; text that is nothing else stays."""
    bare = " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
    return bare or " ".join(text.lower().split())
