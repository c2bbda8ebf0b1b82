"""The errors EditFleet raises on purpose.

    EditFleetError
    ├── InputError     what the user wrote cannot be run; nothing was started (exit code 2)
    ├── CaseError      one case cannot be edited or scored; it is recorded and the rest goes on
    └── ...            those of a store of results (`cluster.store.errors`), and of a cluster that is gone
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from editors.core.places import scrubbed
from editors.core.printable import CELL, printable

if TYPE_CHECKING:
    from pydantic import ValidationError

QUOTED = 200  # characters
DID_YOU_MEAN = "Did you mean"


class EditFleetError(Exception):
    """Base of all errors raised on purpose."""


class InputError(EditFleetError):
    """Something the user wrote is wrong. The message names the value and the cure; `at` leads to that value from what
    was being looked at, where that is larger and this is known."""

    def __init__(self, message: str = "", at: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.at = at


class CaseError(EditFleetError):
    """One case is unusable. The message names what is wrong with it."""


def quoted(text: str) -> str:
    """A text as messages show it: in one line, cut where it is long, and before that without secrets."""
    text = scrubbed(text)
    return f"'{printable(text)}'" if len(text) <= QUOTED else f"'{printable(text[:QUOTED])}...'"


def spelt(key: str | int) -> str:
    """A key of a record as it can be printed, whatever it holds."""
    return ascii(key).strip("'")


def first_problem(error: ValidationError) -> str:
    """Where something is not of its form, and how."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(spelt, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def unknown(what: str, given: str, known: Iterable[str]) -> InputError:
    """An error for a name that does not exist: says what was probably meant, and lists what exists."""
    names = sorted(known)
    close = difflib.get_close_matches(given.lower(), names, n=1)
    meant = f" {DID_YOU_MEAN} {quoted(close[0])}?" if close else ""
    there = ", ".join(printable(scrubbed(name), CELL) for name in names)
    return InputError(f"unknown {what} {quoted(given)}.{meant} Available: {there}")
