"""Texts as they are compared. Each function leaves out what does not count where it is used."""

from __future__ import annotations

import re
import string
import unicodedata

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def folded(text: str) -> str:
    """Case folded, letters composed, white space collapsed: how prompts, subjects and targets of a data set are
    compared."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def bare_words(text: str) -> str:
    """The words alone, case folded and without accents, a blank before and after each, so that `in` finds whole words:
    how names are looked for in what a language model wrote."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return " ".join(["", *re.findall(r"[^\W_]+", plain), ""])


def bare_answer(text: str) -> str:
    """Lower case, without punctuation, articles and surplus white space; text that is nothing else stays: how free
    answers are compared, with punctuation taken out and not made a blank ("U.S." is "us")."""
    bare = " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
    return bare or " ".join(text.lower().split())
