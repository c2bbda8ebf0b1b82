"""Texts from anywhere as people may be shown them: nothing in them moves the cursor, turns the writing round, or fills
the screen. Files for programs (rows, JSON, CSV) keep texts as they are."""

from __future__ import annotations

import re

LINE, CELL = 1000, 80  # characters of a line, and of a name in a table, at most
# Control characters (C0, DEL, C1), line separators, what turns the direction of writing, and half characters.
_STRANGE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Markdown's marks. An underscore within a word is none, nor is a bracket that no link follows.
_MARKS = re.compile(r"[\\`*<|~]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|&(?=[#\w]+;)")


def printable(text: str, longest: int = LINE) -> str:
    """A text as one line, in which strange characters are spelt, as `\\x1b` or `\\u202e`; of a long one, both ends."""
    return _STRANGE.sub(lambda char: char[0].encode("unicode_escape").decode("ascii"), shortened(text, longest))


def printable_lines(text: str) -> str:
    """A text of several lines, each of them printable."""
    return "\n".join(map(printable, text.split("\n")))


def shortened(text: str, longest: int = LINE) -> str:
    """Both ends of a text that is too long: messages end in the cure."""
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[:longest - end - 5]} ... {text[-end:]}"


def in_markdown(text: str, longest: int = LINE) -> str:
    """A text that Markdown shows as it is, also in the cell of a table."""
    return _MARKS.sub(r"\\\g<0>", printable(text, longest))


def in_json(text: str) -> str:
    """One line of JSON that says the same and is safe to print."""
    return _STRANGE.sub(lambda char: f"\\u{ord(char[0]):04x}", text)
