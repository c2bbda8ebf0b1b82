"""Files of a store in a folder, on a disk of this machine or one that all machines mount."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from fsspec.implementations.local import LocalFileSystem

from cluster.store.errors import StoreError
from cluster.store.files import MARKER, Files, WorkingFile, trouble_number
from editors.core.files import no_file

LOCK_SECONDS = 5.0  # that a lock, which is held for a moment, is waited for
UNTOUCHED = 3600.0  # seconds after which whoever wrote to a file will not go on
STAGED = re.compile(r"\.(.+\.|probe-)[0-9a-f]{32}")  # by `_staged`, `editors.core.files.atomic`, or a probe
CURES = {errno.ENOSPC: "its disk is full: free some space there",
         errno.EDQUOT: "your quota there is used up: free some space",
         errno.EFBIG: "a file there may not be so large: lift the limit (`ulimit -f`)",
         errno.EISDIR: "a folder is in the way of one of its files: remove it (`editfleet status` names it)",
         errno.EEXIST: "a file is in its way: choose another --out",
         errno.ENOTDIR: "a file is in its way: choose another --out",
         errno.EROFS: "it is on a read-only file system: mount it for writing, or choose another --out",
         errno.EACCES: "that is not permitted: give yourself the right to write there, or choose another --out",
         errno.EPERM: "that is not permitted: give yourself the right to write there, or choose another --out"}


class LocalFiles(Files):
    """They are written beside where they shall be, brought to the disk, and renamed."""

    remote = False
    faults = OSError

    def __init__(self, root: Path) -> None:
        self.root = self._path = str(root)
        self._fs = LocalFileSystem()

    def fetch(self, name: str, anew: bool = False) -> Path:
        return Path(self._at(name))

    def forget(self, name: str) -> None:
        pass

    def create(self, folders: list[str], marker: bytes) -> None:
        try:
            Path(self.root).mkdir(parents=True, exist_ok=True)
            if not self.exists(MARKER):  # first: a folder with anything else is no store
                self._write(MARKER, marker)
            for folder in folders:
                Path(self._at(folder)).mkdir(exist_ok=True)
        except OSError as error:
            raise self.trouble("write to", error) from error

    def read(self, name: str) -> bytes:
        if kind := no_file(self._at(name)):
            raise OSError(errno.EISDIR, f"it is {kind}, and no file")
        return super().read(name)

    def write(self, name: str, data: bytes) -> None:
        with self.writing():
            self._write(name, data)

    def _write(self, name: str, data: bytes) -> None:
        with self._staged(name) as path:
            path.write_bytes(data)
            self._publish(path, name)

    def move(self, name: str, to: str) -> None:
        with self.writing(), contextlib.suppress(FileNotFoundError):
            Path(self._at(name)).replace(self._at(to))

    def tidy(self, folders: Iterable[str]) -> int:
        removed = 0
        with self.writing(), self._staged("now") as clock:  # the disk's own: that of its machine may differ
            oldest = clock.stat().st_mtime - UNTOUCHED
            for path in (path for folder in folders for path in Path(self._at(folder)).glob(".*")):
                with contextlib.suppress(FileNotFoundError):  # others may tidy, too
                    if STAGED.fullmatch(path.name) and path.is_file() and path.stat().st_mtime < oldest:
                        path.unlink()
                        removed += 1
        return removed

    @contextmanager
    def working(self, name: str) -> Iterator[WorkingFile]:
        self.check()
        yield WorkingFile(Path(self._at(name)), lambda: None)

    @contextmanager
    def exclusively(self) -> Iterator[bool]:
        self.check()
        # A lock that is a file, which the package would take instead, outlives who is killed.
        lock = FileLock(self._at(".lock"), LOCK_SECONDS, poll_interval=0.01, fallback_to_soft=False)
        with contextlib.suppress(OSError):  # who has it was stopped; or a shared file system may have no locks
            lock.acquire()
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def trouble(self, doing: str, error: Exception) -> StoreError:
        return self._failed(doing, error, CURES.get(trouble_number(error), "see that its disk is there and works"))

    @contextmanager
    def _staged(self, name: str) -> Iterator[Path]:
        target = Path(self._at(name))
        path = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            path.touch()
            yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _publish(self, path: Path, name: str) -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.replace(self._at(name))
