"""Running text, for second moments and perplexity."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TextIO

from editors.core.errors import InputError
from editors.core.files import expanded
from editors.core.places import shown
from evaluators.datasets.content import on_content
from evaluators.datasets.fields import unfit
from evaluators.datasets.reading import LONGEST, Record, file_records, opened
from evaluators.testbed.statements import texts

TESTBED_CORPUS = "testbed"
SAMPLE = 200  # texts of the endless built-in corpus that tell whether it is still the same
RECORDS = re.compile(r".*\.(json|jsonl|ndjson)(\.\w+)?", re.IGNORECASE)
TABLES = re.compile(r".*\.(csv|tsv)(\.\w+)?", re.IGNORECASE)
# Rare in text, and common in what is none, or was decoded wrongly: U+FFFD takes the place of what could not be.
STRANGE = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\ufffd]")
STRAY = 20  # characters of a line that is text, for each of these


def read_corpus(name: str) -> Iterator[str]:
    """Texts by name: "testbed" (the built-in world's, without end), or a file or URL with one text a line, or with
    JSON records that have a `text` each; unpacked where its name ends in .gz, .bz2, .xz or .zip. Blank texts are left
    out.

    Raises `InputError`, at once, for a file that cannot be read, and when it gets there, for what is not text.
    """
    if name == TESTBED_CORPUS:
        return texts()
    if "://" not in name and not os.path.isfile(expanded(name)):
        raise InputError(f"corpus '{shown(name)}' is neither '{TESTBED_CORPUS}' nor a text file")
    if TABLES.fullmatch(name):
        raise InputError(f"corpus '{shown(name)}' is a table by its name, whose other columns would be read as text; "
                         "write the column of texts as JSON records with a 'text' each, or one text a line")
    found = _texts_of(name)
    first = list(islice(found, 1))
    return chain(first, found)


def corpus_digest(name: str) -> str:
    """24 hexadecimal digits that identify a file by all of its texts, the endless built-in corpus by its first. Raises
    `InputError` like `read_corpus`, and where there is no text."""
    if name == TESTBED_CORPUS:
        return _digest(islice(texts(), SAMPLE))
    return on_content(name, _digest_of_file)


def _digest_of_file(name: str) -> str:
    found = read_corpus(name)
    first = list(islice(found, 1))
    if not first:
        raise InputError(f"corpus '{shown(name)}' has no text: nothing but blank lines, or records of blank texts")
    return _digest(chain(first, found))


def _digest(found: Iterable[str]) -> str:
    running = hashlib.sha256()
    for text in found:
        running.update(text.encode().replace(b"\n", b"\xff") + b"\n")  # a byte of no text: a record may have lines
    return running.hexdigest()[:24]


def _texts_of(name: str) -> Iterator[str]:
    """The texts of a file that are not blank."""
    for text in _of_records(name) if _has_records(name) else _of_lines(name):
        if text := text.strip():
            yield text


def _has_records(name: str) -> bool:
    """Whether a file is of JSON records, by its name or its first line."""
    if RECORDS.fullmatch(name):
        return True
    with opened(name) as file:
        first = next((line for line in islice(_lines(file), 1000) if line.strip()), "")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _of_lines(name: str) -> Iterator[str]:
    """The lines of a file, each checked to be text: other files may pass for UTF-8."""
    with opened(name) as file:
        for number, line in enumerate(_lines(file), 1):
            if len(line) > LONGEST:
                raise InputError(f"corpus '{shown(name)}': line {number} is longer than {LONGEST:,} characters; put "
                                 "one text on each line")
            strange = STRANGE.findall(line)
            if "\0" in strange or len(strange) * STRAY > len(line):
                raise InputError(f"corpus '{shown(name)}' is not text: line {number} has the character "
                                 f"U+{ord(min(strange)):04X}; name a file with one text a line, or JSON records with a "
                                 "'text' each")
            yield line


def _lines(file: TextIO) -> Iterator[str]:
    """Lines, of which one that is too long comes in pieces."""
    return iter(lambda: file.readline(LONGEST + 1), "")


def _of_records(name: str) -> Iterator[str]:
    return (_text_of(record, name) for record in file_records(name))


def _text_of(record: Record, name: str) -> str:
    content = record.content
    text = content.get("text") if isinstance(content, dict) else content
    if isinstance(text, str):
        problem = unfit(text, may_be_empty=True)
    else:
        problem = record.fault or "it has no 'text', or one that is not a string"
    if problem:
        raise InputError(f"corpus '{shown(name)}', {record}: {problem}; each record is a text, or an object "
                         "with a 'text'")
    return str(text)
