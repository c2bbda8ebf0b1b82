"""Cases in a temporary file, read again when they are asked for: a million in full would take gigabytes of memory."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from editors.core.errors import InputError
from evaluators.cases import Case


class CaseFile:
    """A temporary file that cases are added to, each as its `text_of`. It has no name, and is gone with the last of its
    `Cases`. Raises `InputError` where the disk has no room."""

    def __init__(self) -> None:
        self._ends = array("Q", [0])
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this
        except OSError as error:
            raise _no_room(error) from error

    def add(self, case: Case) -> None:
        text = text_of(case)
        try:
            self._file.write(text)
        except OSError as error:
            raise _no_room(error) from error
        self._ends.append(self._ends[-1] + len(text))

    def cases(self) -> Cases:
        """All that were added."""
        try:
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from error
        return Cases(self, range(len(self._ends) - 1))

    def text(self, place: int) -> bytes:
        start, end = self._ends[place], self._ends[place + 1]
        return os.pread(self._file.fileno(), end - start, start)  # neither threads nor forks share where it reads


class Cases(Sequence[Case]):
    """Some cases of a file, in any order; `places` says which. Each is made anew whenever it is asked for. Pickled they
    are a tuple of cases."""

    __slots__ = ("_file", "places")

    def __init__(self, file: CaseFile, places: Sequence[int]) -> None:
        self._file, self.places = file, places

    def at(self, places: Sequence[int]) -> Cases:
        """Those at these places of the file."""
        return Cases(self._file, places)

    def texts(self) -> Iterator[bytes]:
        return map(self._file.text, self.places)

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> Cases: ...
    def __getitem__(self, index: int | slice) -> Case | Cases:
        if isinstance(index, slice):
            return Cases(self._file, self.places[index])
        return Case.model_validate_json(self._file.text(self.places[index]))

    def __iter__(self) -> Iterator[Case]:
        return map(Case.model_validate_json, self.texts())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(Case.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[tuple[Case, ...]], tuple[list[Case]]]:
        return tuple, (list(self),)


def text_of(case: Case) -> bytes:
    """A case as JSON; fields that are not used are left out."""
    return json.dumps(case.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"),
                      allow_nan=False).encode()


def texts_of(cases: Iterable[Case]) -> Iterator[bytes]:
    """Cases as JSON, each as its `text_of`."""
    return cases.texts() if isinstance(cases, Cases) else map(text_of, cases)


def _no_room(error: OSError) -> InputError:
    return InputError(f"cannot keep the cases of a data set in a temporary file: {error.strerror}; name a folder that "
                      "has room in the environment variable TMPDIR")
