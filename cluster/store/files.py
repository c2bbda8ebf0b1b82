"""Files of a store that appear whole or not at all: in a folder, or under a URL that fsspec knows.

Names are relative and have slashes. Trouble with the place itself is a `StoreError` that names the cure; only reads
raise `FileNotFoundError`, and `OSError` for a file on a broken disk, which concern that one file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from editors.core.errors import StoreError

LOCK_SECONDS = 5.0  # that a lock, which is held for a moment, is waited for
MARKER = "store.json"  # a store is where this file is
CURES = {errno.ENOSPC: "its disk is full: free some space there",
         errno.EDQUOT: "your quota there is used up: free some space",
         errno.EFBIG: "a file there may not be so large: lift the limit (`ulimit -f`)",
         errno.EEXIST: "a file is in its way: choose another --out",
         errno.ENOTDIR: "a file is in its way: choose another --out",
         errno.EROFS: "it is on a read-only file system: mount it for writing, or choose another --out",
         errno.EACCES: "that is not permitted: give yourself the right to write there, or choose another --out",
         errno.EPERM: "that is not permitted: give yourself the right to write there, or choose another --out"}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def open_files(root: str | os.PathLike[str]) -> Files:
    """The files at a path or URL, where there need be none yet. Raises `InputError` for a URL that nothing can open."""
    place = os.fspath(root)
    protocol, separator, rest = place.partition("://")
    if not separator or protocol in ("file", "local"):
        return LocalFiles(Path(rest if separator else place).absolute())
    from cluster.store.remote import RemoteFiles

    return RemoteFiles(place.rstrip("/"))


class Files(ABC):
    """What a store asks of the place that it is in."""

    remote: bool  # whether to read a file is to fetch it
    faults: type[Exception] | tuple[type[Exception], ...] = OSError  # what the place raises when it fails

    def __init__(self, root: str) -> None:
        self.root = root

    @abstractmethod
    def found(self, marker: bytes, folders: list[str]) -> None:
        """Makes a new store. Raises `StoreError`."""

    @abstractmethod
    def occupied(self) -> bool:
        """Whether there is anything."""

    @abstractmethod
    def exists(self, name: str) -> bool: ...

    @abstractmethod
    def read(self, name: str) -> bytes: ...

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """The bytes in each file of a folder, by its name there; asks once for all."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None: ...

    @abstractmethod
    def new(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yields a path to write to, in a folder where other files may be; it becomes `name` when the block ends
        well."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""

    @abstractmethod
    def move(self, name: str, to: str) -> None:
        """Moves a file, if it is there."""

    @abstractmethod
    def fetch(self, name: str, anew: bool = False) -> Path:
        """A path to read the file at; what was fetched before is used again unless it is asked for `anew`."""

    @abstractmethod
    def forget(self, name: str) -> None:
        """Removes what was fetched of a file, if that is a copy."""

    @abstractmethod
    def working(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Yields a path where a file that the block reads, replaces and removes is kept."""

    @abstractmethod
    def exclusively(self) -> contextlib.AbstractContextManager[bool]:
        """Keeps others that also ask out of the block; yields False where it cannot."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(errno.ENOENT, "there is no such file") from error
        except self.faults as error:
            if getattr(error, "errno", None) == errno.EIO:
                raise  # this file's fault
            raise self.trouble("read", error) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What is written into a store that was deleted would make half a store."""
        self.check()
        try:
            yield
        except self.faults as error:
            self.check()
            raise self.trouble("write to", error) from error

    def check(self) -> None:
        """Raises `StoreError` unless there is a store."""
        if not self.exists(MARKER):
            raise StoreError(f"store '{self.root}' was deleted or moved while it was used (there is no {MARKER} any "
                             "more); put it back, or start anew with another --out")

    def trouble(self, doing: str, error: Exception) -> StoreError:
        cure = CURES.get(trouble_number(error), self._cure(error))
        told = str(getattr(error, "strerror", None) or error).rstrip(".")
        return StoreError(f"cannot {doing} store '{self.root}': {told}; {cure}. "
                          "Then run the same command again: what is done is kept")

    def _cure(self, error: Exception) -> str:
        return "see that its disk is there and works"


def trouble_number(error: BaseException) -> int:
    """The errno of an error, also of one that a library in Rust raises with the number in its text; else 0."""
    number = getattr(error, "errno", None)
    told = re.search(r"\(os error (\d+)\)", str(error))
    return number if isinstance(number, int) else int(told[1]) if told else 0


def _flock(file: IO[str]) -> bool:
    """Locks a file until it is closed or the process ends; False where that is not to be had."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:  # who has it was stopped, or hangs
                return False
            time.sleep(0.01)
        except OSError:  # a shared file system may have no locks
            return False
        else:
            return True


class LocalFiles(Files):
    """A folder, on a disk of this machine or one that all machines mount."""

    remote = False

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self._root = root

    def found(self, marker: bytes, folders: list[str]) -> None:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            if not (self._root / MARKER).exists():  # first: a folder with anything else is no place for a store
                with self._appears(self._root / MARKER) as partial:
                    partial.write_bytes(marker)
            for folder in folders:
                (self._root / folder).mkdir(exist_ok=True)
        except OSError as error:
            raise self.trouble("write to", error) from error

    def occupied(self) -> bool:
        with self.reading():
            return self._root.is_dir() and any(not entry.name.startswith(".") for entry in self._root.iterdir())

    def exists(self, name: str) -> bool:
        try:
            with self.reading():
                return bool(os.stat(self._root / name))
        except FileNotFoundError:
            return False

    def read(self, name: str) -> bytes:
        with self.reading():
            return (self._root / name).read_bytes()

    def sizes(self, folder: str) -> dict[str, int]:
        sizes = {}
        try:
            with self.reading(), os.scandir(self._root / folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # others may just have moved it
                        sizes[entry.name] = entry.stat().st_size
        except FileNotFoundError:
            self.check()
        return {name: size for name, size in sizes.items() if not name.startswith(".")}

    def write(self, name: str, data: bytes) -> None:
        with self.writing(), self._appears(self._root / name) as partial:
            partial.write_bytes(data)

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        self.check()
        of_block: Exception | None = None
        try:
            with self._appears(self._root / name) as partial:
                try:
                    yield partial
                except Exception as error:
                    of_block = error
                    raise
        except Exception as error:
            self.check()
            if error is not of_block or trouble_number(error) in NO_ROOM:
                raise self.trouble("write to", error) from error
            raise

    def remove(self, name: str) -> None:
        with self.writing():
            (self._root / name).unlink(missing_ok=True)

    def move(self, name: str, to: str) -> None:
        with self.writing(), contextlib.suppress(FileNotFoundError):
            (self._root / name).replace(self._root / to)

    def fetch(self, name: str, anew: bool = False) -> Path:
        return self._root / name

    def forget(self, name: str) -> None:
        pass

    @contextmanager
    def working(self, name: str) -> Iterator[Path]:
        self.check()
        yield self._root / name

    @contextmanager
    def exclusively(self) -> Iterator[bool]:
        with self.writing():
            lock = (self._root / ".lock").open("w")
        with lock:
            yield _flock(lock)

    @contextmanager
    def _appears(self, path: Path) -> Iterator[Path]:
        """Yields a temporary path that becomes `path` when the block ends well, and is removed when it does not."""
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            partial.touch()
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
