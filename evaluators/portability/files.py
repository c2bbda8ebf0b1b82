"""Reading and writing the files of a build; what is written appears whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from editors.core.errors import InputError


def read_text(path: Path, what: str) -> str:
    """A UTF-8 file, with or without a byte order mark, its line ends as they are. Raises `InputError`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        raise InputError(f"cannot read {what} '{path}': {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{what} '{path}' is not UTF-8 text: {error}") from error


def read_json(path: Path, what: str) -> Any:
    """Raises `InputError` where there is no such file, or it is not JSON."""
    try:
        return json.loads(read_text(path, what))
    except json.JSONDecodeError as error:
        raise InputError(f"{what} '{path}', line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
                         ) from error


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Raises `InputError` where the file cannot be written."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("w", encoding=encoding, newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Raises `InputError` where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to folder '{path}': {error.strerror or error}") from error
