"""What is left of a text once a tokenizer has read it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any


def lost_characters(tokenizer: Any, text: str) -> str:
    """Those of a text's characters, each once, that a tokenizer has no token for: it drops them, or reads each of them
    as one and the same unknown token. Empty for a text that comes back from its tokens.

    What a tokenizer's own normaliser changes, case, compatible characters (NFKC) and white space are no loss.
    """
    if _comes_back(tokenizer, text):
        return ""
    return "".join(each for each in dict.fromkeys(text) if not each.isspace() and not _comes_back(tokenizer, each)
                   ) or text


def mostly_lost(tokenizer: Any, texts: Iterable[str]) -> str:
    """The characters that are lost of these texts where more than half of their letters are, else "": the model would
    read the same unknown token over and over."""
    lost, unknown, letters = "", 0, 0
    for text in texts:
        own = lost_characters(tokenizer, text)
        lost += own
        letters += sum(map(str.isalnum, text))
        unknown += sum(char in own for char in text if char.isalnum())
    return "".join(dict.fromkeys(lost)) if 2 * unknown > letters else ""


def _comes_back(tokenizer: Any, text: str) -> bool:
    ids = tokenizer.encode(text, add_special_tokens=False)
    back = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    normaliser = tokenizer.backend_tokenizer.normalizer
    return _folded(back) == _folded(normaliser.normalize_str(text) if normaliser else text)


def _folded(text: str) -> str:
    blank = "\u2581"  # SentencePiece's
    return "".join(unicodedata.normalize("NFKC", text).casefold().replace(blank, " ").split())
