"""Running text, for second moments and perplexity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from editors.core.errors import InputError
from evaluators.testbed.statements import texts

TESTBED_CORPUS = "testbed"


def read_corpus(name: str) -> Iterator[str]:
    """Texts by name: "testbed" (the built-in world's, without end) or a text file with one text a line.

    Raises `InputError`, at once, where there is no such file.
    """
    if name == TESTBED_CORPUS:
        return texts()
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"corpus '{name}' is neither '{TESTBED_CORPUS}' nor a text file")
    return _lines(path)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (line.strip() for line in file if line.strip())
