"""Small files that commands read and write; what is written appears whole or not at all."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from editors.core.errors import InputError
from editors.core.files import atomic, no_file


def read_text(path: Path, what: str) -> str:
    """A UTF-8 file, with or without a byte order mark, its line ends as they are. Raises `InputError`."""
    if kind := no_file(path):
        raise InputError(f"cannot read {what} '{path}': it is {kind}; name a file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"cannot read {what} '{path}': {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{what} '{path}' is not UTF-8 text: {error}") from error


def read_json(path: Path, what: str) -> Any:
    """Raises `InputError` where there is no such file, or it is not JSON."""
    text = read_text(path, what)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{what} '{path}': not JSON: it is nested too deep") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{what} '{path}', line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
                         ) from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{what} '{path}': not JSON: {error}") from error


def write_json(path: Path, value: object) -> None:
    """Numbers that are not finite become null. Raises `InputError` where the file cannot be written."""
    write_text(path, json.dumps(finite(value), ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Raises `InputError` where the file cannot be written."""
    write_bytes(path, text.encode(encoding))


def write_bytes(path: Path, data: bytes) -> None:
    """Raises `InputError` where the file cannot be written."""
    if kind := no_file(path):
        raise InputError(f"cannot write '{path}': it is {kind}; name a file")
    try:
        with atomic(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}") from error


def check_writable(path: Path) -> None:
    """Raises `InputError` where no file can be written to `path`: to be told before long work, not after it."""
    if kind := no_file(path):
        raise InputError(f"cannot write to '{path}': it is {kind}; name a file")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write to '{path}': {error.strerror or error}; name a file in a folder that exists "
                         "and can be written to") from error


def make_folder(path: Path) -> None:
    """Raises `InputError` where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to folder '{path}': {error.strerror or error}") from error


def finite(value: object) -> object:
    """A value as JSON can hold it: None for numbers that are not finite, however deep."""
    match value:
        case dict():
            return {name: finite(inner) for name, inner in value.items()}
        case list() | tuple():
            return [finite(inner) for inner in value]
        case float() if not math.isfinite(value):
            return None
    return value
