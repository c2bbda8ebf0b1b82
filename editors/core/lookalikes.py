"""Texts that look alike and are not the same: composed and decomposed letters, kinds of blanks and of quotes, Cyrillic
and Greek letters among Latin ones."""

from __future__ import annotations

import unicodedata
from difflib import SequenceMatcher

_MARKS = str.maketrans("\u2018\u2019\u201b\u2032\u201c\u201d\u201f\u2033\u2010\u2011\u2012\u2013\u2014\u2212",
                       "''''\"\"\"\"------")
# In most fonts the same glyphs, in both cases.
_LETTERS = str.maketrans("\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u03bf", "aeopcyxijso")
# Only as capitals do these look like Latin letters: B, K, M, H, T, and the Greek A, B, E, Z, H, I, K, M, N, P, T, X, Y.
_CAPITALS = str.maketrans("\u0412\u041a\u041c\u041d\u0422\u0391\u0392\u0395\u0396\u0397\u0399"
                          "\u039a\u039c\u039d\u03a1\u03a4\u03a7\u03a5", "BKMHTABEZHIKMNPTXY")
MOST = 3  # differences that are told


def how_they_differ(text: str, within: str) -> str:
    """To end a message: which characters tell `text` from a part of `within` that looks like it; "" where none does."""
    looks, (all_looks, places) = _looks(text)[0], _looks(within)
    start = all_looks.find(looks)
    if not looks or start < 0 or text in within:
        return ""
    last = start + len(looks)
    end = places[last] if last < len(places) else len(within)
    there = within[places[start]: end]
    changes = [(text[a:b], there[c:d]) for kind, a, b, c, d in SequenceMatcher(None, text, there, False).get_opcodes()
               if kind != "equal"]
    told = [f"{_named(own)} for {_named(other)}" for own, other in dict.fromkeys(changes)]
    more = f", and {len(told) - MOST} more" if len(told) > MOST else ""
    return f"; they look alike, but it has {', '.join(told[:MOST])}{more}"


def _looks(text: str) -> tuple[str, list[int]]:
    """What a text looks like, and from which of its characters each part of that comes."""
    found = [(part, place) for place, char in enumerate(text) for part in _look(char)]
    return "".join(part for part, _ in found), [place for _, place in found]


def _look(char: str) -> str:
    if unicodedata.category(char) == "Cf":  # zero-width characters, marks of direction
        return ""
    plain = unicodedata.normalize("NFKD", char).translate(_MARKS).translate(_CAPITALS)
    return " " if plain.isspace() else plain.casefold().translate(_LETTERS)


def _named(part: str) -> str:
    if not part:
        return "nothing"
    return " + ".join(f"{unicodedata.name(char, 'a control character')} (U+{ord(char):04X})" for char in part)
