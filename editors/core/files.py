"""Files that are there whole or not at all; and tensors, with JSON facts about them, as one safetensors file: the same
content, the same bytes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from editors.core.errors import InputError, first_problem, quoted, spelt
from editors.core.headers import FORMAT, Header
from editors.core.printable import printable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NO_FILES = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a device"}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # in what the tensors' library says
HEADER = "editfleet"  # the only key of the file's metadata: the library writes several in any order
H = TypeVar("H", bound=Header)


def no_file(path: Path | str) -> str | None:
    """What is at a path where a file should be: to open a pipe may wait for ever, to read a device never ends, and what
    is renamed to either would remove it. None for a file, and where there is nothing."""
    try:
        return NO_FILES.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):
        return None


def expanded(path: Path | str) -> Path:
    """A path with the home folder that its `~` stands for. Raises `InputError` where there is none."""
    found = os.path.expanduser(path)
    if found.startswith("~"):
        user = found.partition("/")[0]
        raise InputError(f"{quoted(str(path))}: there is no home folder that '{printable(user)}' stands for; write the "
                         f"whole path, or './{printable(user)}' for a folder of that name")
    return Path(found)


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`, to be written to. When the block ends well it becomes `path`, its content
    safely on the disk before its name is; when it does not, it is removed, and `path` stays as it was."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with _named(path, partial):
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
    check_vacant(Path(path))
    path = Path(os.path.realpath(path))
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with _named(path, partial):
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


@contextmanager
def _named(path: Path, partial: Path) -> Iterator[None]:
    """What keeps something from being written names where it was to go, neither its temporary name nor, as copying does
    where there is no room, what was read; and is an `OSError`, as the tensors' library does not say it."""
    try:
        yield
    except SafetensorError as error:
        if (found := _OS_ERROR.search(str(error))) is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
    except OSError as error:
        if error.errno not in NO_ROOM and not str(error.filename).startswith(str(partial)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_vacant(path: Path) -> None:
    """Raises `InputError` where no folder can be written to `path`: to be told before long work, not after it."""
    path = Path(os.path.realpath(path))
    if path.is_symlink():
        raise InputError(f"cannot write to '{path}': it is a link that leads to itself; name a folder")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write to '{path}': name a folder in one that exists and can be written to")
    if path.exists() and not path.is_dir():
        raise InputError(f"'{path}' is a file; name a new folder")
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"folder '{path}' is not empty; name a new or an empty one")


def write_tensors(path: Path | str, header: Header, tensors: Mapping[str, Tensor]) -> None:
    """Writes a file of the header's kind, atomically. Raises `OSError` where it cannot be written."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen = set[int]()
    for name, tensor in whole.items():  # a file may not hold one piece of memory under two names, nor a part of one
        memory = tensor.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != tensor.nbytes:
            whole[name] = tensor.clone()
        seen.add(memory.data_ptr())
    fields = {**header.model_dump(exclude={"sha256"}), "format": FORMAT,
              "tensors": {name: sha256_of(tensor) for name, tensor in whole.items()}}
    with atomic(path) as partial:
        save_tensors(whole, partial, {HEADER: _json({**fields, "sha256": _sha256_of_header(fields)})})


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Writes a safetensors file that may be read by whom the user lets read new files."""
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata)  # which puts a file in its place that nobody else may read
    path.chmod(mode)


def read_header(path: Path | str, schema: type[H]) -> H:
    """The header alone. Raises `InputError`, naming the file and a cure, for a file that is missing, damaged, of
    another kind or of a later format."""
    with _open(path, schema) as (header, _):
        return header


def read_tensors(path: Path | str, schema: type[H]) -> tuple[H, dict[str, Tensor]]:
    """Header and tensors, on the CPU. Raises `InputError` like `read_header`."""
    with _open(path, schema) as (header, file):
        return header, {name: _read(path, header, file, name) for name in file.keys()}  # noqa: SIM118


def read_tensor(path: Path | str, schema: type[H], name: str) -> Tensor:
    """One tensor of a file, where all of them may not fit in memory. Raises `InputError` like `read_header`."""
    with _open(path, schema) as (header, file):
        return _read(path, header, file, name)


def damaged(path: Path | str, schema: type[Header] | Header, problem: str) -> InputError:
    return InputError(f"{schema.name()} file '{path}' is damaged: {problem}; {schema.cure}")


def misfit(found: Mapping[str, Tensor], wanted: Mapping[str, Slot]) -> str | None:
    """What tells these tensors, by name, from those that are wanted; None where nothing does."""
    if odd := sorted(found.keys() ^ wanted.keys()):
        return f"tensor '{odd[0]}' " + ("is missing" if odd[0] in wanted else "has no place there")
    for name, tensor in found.items():
        there, slot = Slot.of(tensor), wanted[name]
        fits = there.dtype == slot.dtype or (slot.dtype is None and tensor.is_floating_point())
        if not fits or not slot.takes(there.shape):
            return f"tensor '{name}' is {there} and should be {slot}"
    return None


class Slot(NamedTuple):
    """What a tensor should be; a side of None may have any length but 0, a dtype of None be any with a fraction."""

    dtype: torch.dtype | None
    shape: tuple[int | None, ...]

    @staticmethod
    def of(tensor: Tensor) -> Slot:
        return Slot(tensor.dtype, tuple(tensor.shape))

    def takes(self, shape: tuple[int | None, ...]) -> bool:
        return len(shape) == len(self.shape) and all(
            side == wanted or (wanted is None and side != 0) for side, wanted in zip(shape, self.shape, strict=True))

    def __str__(self) -> str:
        sides = ", ".join("any" if side is None else str(side) for side in self.shape)
        dtype = "any precision" if self.dtype is None else str(self.dtype).removeprefix("torch.")
        return f"[{sides}] in {dtype}"


def all_finite(tensor: Tensor) -> bool:
    """Of a tensor of any dtype; those of one byte have no such operation of their own."""
    if not tensor.numel():
        return True
    # Of the least and the greatest, which are NaN where any is: ten times as fast on CPUs as asking each.
    low, high = (tensor.float() if tensor.itemsize == 1 else tensor).aminmax()
    return bool(low.isfinite() & high.isfinite())


def raw_bytes(tensor: Tensor) -> Any:
    """A tensor's numbers as they are in memory, whatever its dtype: a buffer."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def sha256_of(tensor: Tensor) -> str:
    """Of a tensor's dtype, shape and numbers."""
    running = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    running.update(raw_bytes(tensor))
    return running.hexdigest()


def _sha256_of_header(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_json(fields).encode()).hexdigest()


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True)


class _First(BaseModel):
    """What is asked of a header before anything else."""

    model_config = ConfigDict(strict=True)
    kind: str
    format: int = 1


@contextmanager
def _open(path: Path | str, schema: type[H]) -> Iterator[tuple[H, Any]]:
    if kind := no_file(path):
        raise InputError(f"cannot read {schema.name()} file '{path}': it is {kind}; name a file")
    try:
        opened = safe_open(path, "pt")
    except FileNotFoundError:
        raise InputError(f"there is no {schema.name()} file '{path}'") from None
    except OSError as error:
        raise InputError(f"cannot read {schema.name()} file '{path}': {error.strerror or error}") from error
    except Exception as error:
        raise InputError(f"'{path}' is not a safetensors file, or is damaged ({error}); {schema.cure}") from error
    with opened as file:
        header = _header(path, schema, (file.metadata() or {}).get(HEADER, "{}"))
        if header.tensors is not None and (odd := sorted(header.tensors.keys() ^ set(file.keys()))):
            raise damaged(path, schema, f"tensor '{odd[0]}' " + (
                "is missing" if odd[0] in header.tensors else "is none of those it was written with"))
        yield header, file


def _header(path: Path | str, schema: type[H], text: str) -> H:
    """A file's header from its JSON. Raises like `read_header`."""
    try:
        first = _First.model_validate_json(text)
        if first.kind != schema.name():
            raise InputError(f"'{path}' is no {schema.name()} file; it holds a {spelt(first.kind)}")
        if first.format > FORMAT:
            raise InputError(f"'{path}' is of format {first.format}, and this version of EditFleet reads "
                             f"{schema.name()} files up to format {FORMAT}; take the version that wrote it")
        header = schema.model_validate_json(text)
        fields: dict[str, Any] = json.loads(text)
    except ValidationError as error:
        if text == "{}":
            raise InputError(f"'{path}' is no {schema.name()} file; it holds something else") from None
        raise damaged(path, schema, f"its header has {first_problem(error)}") from error
    except ValueError as error:  # a number of thousands of digits
        raise damaged(path, schema, f"its header has {error}") from error
    claimed = fields.pop("sha256", None)
    if (header.format != 1 or claimed) and (header.tensors is None or claimed != _sha256_of_header(fields)):
        raise damaged(path, schema, "its header is not what was written")
    return header


def _read(path: Path | str, header: Header, file: Any, name: str) -> Tensor:
    try:
        tensor: Tensor = file.get_tensor(name)
    except Exception as error:
        raise damaged(path, header, f"tensor '{name}' cannot be read ({error})") from error
    if header.tensors is not None and sha256_of(tensor) != header.tensors[name]:
        raise damaged(path, header, f"tensor '{name}' is not what was written")
    return tensor
