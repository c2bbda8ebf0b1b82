"""Files that are there whole or not at all; and tensors, with JSON facts about them, as one safetensors file: the same
content, the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from editors.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

HEADER = "editfleet"  # the only key of the file's metadata: the library writes several in any order


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`, to be written to. When the block ends well it becomes `path`, its content
    safely on the disk before its name is; when it does not, it is removed, and `path` stays as it was."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        # Whatever keeps it from being removed (a disk that went away) must not hide what went wrong before.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yields a new, temporary folder beside `path`, which becomes `path` when the block ends well, and is removed when
    it does not. Raises `InputError` where `path` is taken: a file, or a folder that is not empty."""
    path = Path(path).resolve()
    check_vacant(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.mkdir()
        yield partial
        for each in (*partial.rglob("*"), partial):  # content is on the disk before its name is
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        check_vacant(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_vacant(path: Path) -> None:
    """Raises `InputError` where no folder can be written to `path`: to be told before long work, not after it."""
    path = path.resolve()
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write to '{path}': name a folder in one that exists and can be written to")
    if path.exists() and not path.is_dir():
        raise InputError(f"'{path}' is a file; name a new folder")
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"folder '{path}' is not empty; name a new or an empty one")


def write_tensors(path: Path | str, kind: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes a file of a `kind`, such as "patch", atomically; `header` is JSON."""
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen = set[int]()
    for name, tensor in whole.items():  # a file may not hold one piece of memory under two names, nor a part of one
        memory = tensor.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != tensor.nbytes:
            whole[name] = tensor.clone()
        seen.add(memory.data_ptr())
    with atomic(path) as partial:
        save_file(whole, partial, {HEADER: json.dumps({"kind": kind, **header}, sort_keys=True)})


def read_header(path: Path | str, kind: str) -> dict[str, Any]:
    """The header alone. Raises `InputError` for a file that is missing, damaged or of another kind."""
    with _open(path, kind) as (header, _):
        return header


def read_tensors(path: Path | str, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors, on the CPU. Raises `InputError` like `read_header`."""
    with _open(path, kind) as (header, file):
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_tensor(path: Path | str, kind: str, name: str) -> Tensor:
    """One tensor of a file, where all of them may not fit in memory. Raises `InputError` like `read_header`."""
    with _open(path, kind) as (_, file):
        tensor: Tensor = file.get_tensor(name)
        return tensor


@contextmanager
def _open(path: Path | str, kind: str) -> Iterator[tuple[dict[str, Any], Any]]:
    try:
        opened = safe_open(path, "pt")
    except FileNotFoundError:
        raise InputError(f"there is no {kind} file '{path}'") from None
    except Exception as error:
        raise InputError(f"'{path}' is not a safetensors file: {error}") from error
    with opened as file:
        header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
        found = header.pop("kind", None)
        if found != kind:
            raise InputError(f"'{path}' is no {kind} file; it holds {f'a {found}' if found else 'something else'}")
        yield header, file
