"""Reads records one at a time from a file, a URL or the hub, however many there are.

A file is one JSON list, or JSON Lines: one object a line. Memory holds one record and at most `PIECE` characters more,
except where a single record is longer than that.

The list reader feeds the standard library's decoder piece by piece. ijson 3.6 takes a third less time (100,000 records
of COUNTERFACT: 0.5 s of 0.7 s, where making cases of them takes 4 s more), but its C back end cannot be trusted with
files from anywhere: it turns half a surrogate pair into "?", which no later check can see, ends the process by a
segmentation fault at an integer of more than 4,300 digits, fills the memory at 100 kB of opening brackets, and does
not say at which line a file is broken. Its Python back end is 14 times slower.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple, TextIO
from zipfile import ZipFile

from editors.core.errors import EditFleetError, InputError
from editors.core.files import expanded, no_file
from editors.core.places import holds_secrets, scrubbed, shown

PIECE = 1 << 16
MARGIN = 16  # no number, constant or escape is longer, but for numbers of whole digits
LONGEST = 1 << 26  # characters of a record, or of a line of text: the longest book has a tenth of them
LONGEST_INTEGER = 4000  # digits; longer ones take int() quadratic time, and it refuses them
BUCKETS = re.compile(r"(^|::)(s3|s3a|gs|gcs)://", re.IGNORECASE)
_BLANK = re.compile(r"[ \t\n\r]*")


class Record(NamedTuple):
    """A record's number in its source, from 0, its line, from 1 (None: it has none), and its content or its fault."""

    number: int
    line: int | None
    content: Any
    fault: str | None = None

    def __str__(self) -> str:
        return f"record {self.number}" + (f" (line {self.line})" if self.line else "")


def file_records(url: str) -> Iterator[Record]:
    """The records of a file or URL, unpacked where its name ends in .gz, .bz2, .xz or .zip.

    A line of JSON Lines that is not JSON is a record with a fault. Raises `InputError`, when it gets there, for a file
    that cannot be read, is not UTF-8, is no list and no lines of JSON, or ends in the middle.
    """
    place = shown(url)
    with opened(url) as text:
        window = _Window(text, place)
        match window.peek():
            case "[":
                yield from _list_records(window)
            case "{":
                yield from _line_records(window)
            case "":
                raise InputError(f"'{place}' is empty; expected a JSON list of records, or one JSON object a line")
            case other:
                raise InputError(f"'{place}' is not JSON: it begins with {other!r}; expected a JSON list of records, "
                                 "or one JSON object a line")


def hub_records(name: str, config: str | None, split: str) -> Iterator[Record]:
    """The records of a data set on the hub, or of a folder, streamed. Tables give every row all fields, those that have
    no value as None.

    Raises `InputError` where there is no such data set, configuration or split, or no way there.
    """
    import datasets

    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=True)
        for number, row in enumerate(rows):
            yield Record(number, None, row)
    except EditFleetError:
        raise
    except Exception as error:
        raise InputError(f"cannot read split '{split}' of hub data set '{shown(name)}': {_summary(error, name)}. Check "
                         "the name, 'hub_config', 'split' and the network, or fetch its file and give its 'path'"
                         ) from error


@contextmanager
def opened(url: str) -> Iterator[TextIO]:
    """The text of a file or URL, unpacked by its name. File systems and compressions each have errors of their own: all
    become `InputError`, inside too."""
    from fsspec.utils import infer_compression

    with _told(url), ExitStack() as stack:
        packed = _open(url, "rb")
        if infer_compression(packed.path) == "zip":  # of which fsspec reads the first file, whatever it is
            archive = stack.enter_context(ZipFile(stack.enter_context(packed)))
            yield stack.enter_context(_member(archive, shown(url)))
        else:
            yield stack.enter_context(_open(url, "rt", encoding="utf-8-sig", newline="\n", compression="infer"))


def _member(archive: ZipFile, place: str) -> TextIO:
    """The one file of an archive; folders, and what systems add for themselves, are none."""
    names = [info.filename for info in archive.infolist() if not info.is_dir()
             and not info.filename.startswith("__MACOSX/") and not PurePosixPath(info.filename).name.startswith(".")]
    if len(names) != 1:
        those = f" ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})" if names else ""
        raise InputError(f"'{place}' holds {len(names)} files{those}, and one is read; unpack it, and name a file"
                         + (f", or name one in it: 'zip://{names[0]}::{place}'" if names else ""))
    return TextIOWrapper(archive.open(names[0]), encoding="utf-8-sig", newline="\n")


@contextmanager
def opened_bytes(url: str) -> Iterator[BinaryIO]:
    """The bytes of a file or URL as they are. Raises like `opened`."""
    with _told(url), _open(url, "rb") as file:
        yield file


def _open(url: str, mode: str, **settings: Any) -> Any:
    import fsspec

    if BUCKETS.search(url) and holds_secrets(url.partition("?")[0]):
        raise InputError(f"'{shown(url)}': drivers of object stores read no keys from an address; put them where the "
                         "driver looks for them, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if (path := _local(url)) and (kind := no_file(path)):
        raise InputError(f"cannot read '{shown(url)}': it is {kind}; name a file")
    return fsspec.open(url, mode, **settings)


def _local(url: str) -> str | None:
    """The path on this machine that is read first of what a URL names, if any."""
    path = re.sub(r"^(file|local)://", "", url.rpartition("::")[2])
    return None if "://" in path else str(expanded(path))


@contextmanager
def _told(url: str) -> Iterator[None]:
    place = shown(url)
    try:
        yield
    except EditFleetError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"'{place}' is not UTF-8 text ({error}); convert it first") from error
    except ImportError as error:
        raise InputError(f"'{place}' needs another package: {error}; 'pip install' it") from error
    except Exception as error:
        cure = "check the address, your rights and the network" if "://" in url else "check the path"
        told = InputError(f"cannot read '{place}': {_summary(error, url)}; {cure}")
        raise told from (None if holds_secrets(url) else error)  # whose words a traceback would show as they are


def _summary(error: Exception, url: str = "") -> str:
    text = textwrap.shorten(scrubbed(getattr(error, "strerror", None) or str(error), url), 300)
    return f"{text} ({type(error).__name__})" if text else type(error).__name__


def _list_records(window: _Window) -> Iterator[Record]:
    window.take("[")
    number, more = 0, not window.take("]")
    while more:
        window.place = f"record {number}"
        window.peek()
        yield Record(number, window.line, window.value())
        number += 1
        more = window.take(",")
        if not more and not window.take("]"):
            raise window.broken("expected ',' or ']'") if window.peek() else window.cut_short()
    window.place = "the end of the list"
    if window.peek():
        raise window.broken("there is more after it")


def _line_records(window: _Window) -> Iterator[Record]:
    number = 0
    while window.peek():
        line, text = window.line, window.rest_of_line()
        window.place = f"record {number}"
        try:
            yield Record(number, line, _DECODER.decode(text))
        except (ValueError, RecursionError) as error:
            if _is_cut(error, text) and not text.endswith("\n"):
                raise window.cut_short() from error
            yield Record(number, line, None, f"not JSON: {_problem(error)}")
        number += 1


# Not strict: control characters are the record's fault.
_DECODER = json.JSONDecoder(strict=False, parse_int=lambda digits: (
    int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)))


def _problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return error.msg
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _is_cut(error: Exception, text: str, margin: int = 0) -> bool:
    """Whether the error may be that the text ends too early: at its end, or up to `margin` characters before."""
    return isinstance(error, json.JSONDecodeError) and (
        error.msg.startswith("Unterminated string") or error.pos + margin >= len(text.rstrip()))


class _Window:
    """The part of a text that is being read. `place` says for messages what is read now."""

    def __init__(self, text: TextIO, name: str) -> None:
        self.name, self.place = name, "the beginning"
        self._text, self._buffer, self._ended = text, "", False
        self._at, self._line, self._counted = 0, 1, 0  # `_line` is where character `_counted` of the buffer stands

    @property
    def line(self) -> int:
        self._line += self._buffer.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def peek(self) -> str:
        """The next character that is not white space, and moves there; "" at the end."""
        while True:
            blank = _BLANK.match(self._buffer, self._at)
            assert blank is not None
            self._at = blank.end()
            if self._at < len(self._buffer) or not self._fill():
                return self._buffer[self._at: self._at + 1]

    def take(self, character: str) -> bool:
        """Whether that character comes next, and moves past it."""
        found = self.peek() == character
        self._at += found
        return found

    def value(self) -> Any:
        """The next JSON value. What is decided close to the end of the buffer may change as more text comes."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                if _is_cut(error, self._buffer, MARGIN) and self._fill():
                    continue
                if _is_cut(error, self._buffer):
                    raise self.cut_short() from error
                raise self.broken(_problem(error), getattr(error, "pos", self._at)) from error
            if end + MARGIN > len(self._buffer) and self._fill():
                continue
            self._at = end
            return value

    def rest_of_line(self) -> str:
        """What is left of this line, with its end if it has one, and moves past it."""
        while (end := self._buffer.find("\n", self._at)) < 0 and self._fill():
            pass
        start, self._at = self._at, end + 1 if end >= 0 else len(self._buffer)
        return self._buffer[start: self._at]

    def broken(self, problem: str, at: int | None = None) -> InputError:
        """The error for text that is not JSON, seen at character `at` of the buffer (None: here)."""
        at = self._at if at is None else at
        line = self.line + self._buffer.count("\n", self._at, at)
        return InputError(f"'{self.name}' is not JSON at {self.place}, line {line}, near "
                          f"{self._buffer[at: at + 20]!r}: {problem}")

    def cut_short(self) -> InputError:
        return InputError(f"'{self.name}' ends in the middle, at {self.place}, line {self.line}: it was cut short; "
                          "fetch it again")

    def _fill(self) -> bool:
        """Reads at least as much as is held, so that a long value is decoded few times; whether there was more."""
        if len(self._buffer) - self._at > LONGEST:
            raise InputError(f"'{self.name}', {self.place}, line {self.line}: it is longer than {LONGEST:,} "
                             "characters; is it a list of records, one for each edit or text?")
        more = "" if self._ended else self._text.read(max(PIECE, len(self._buffer) - self._at))
        if not more:
            self._ended = True
            return False
        self._line = self.line
        self._buffer, self._at, self._counted = self._buffer[self._at:] + more, 0, 0
        return True
