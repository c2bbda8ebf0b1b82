"""Folders for what one process alone needs, which others clear away once it is gone: whoever is killed cannot."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "editfleet-scratch-"


class Scratch:
    """A folder in `parent` that is made when it is first asked for, after those of dead processes were removed.

    It belongs to who has a lock on it, and the system takes that back however a process ends, in whichever container.
    """

    def __init__(self, parent: str | os.PathLike[str] | None = None) -> None:
        self._parent = Path(parent or tempfile.gettempdir())
        self._made: tuple[Path, int] | None = None

    @property
    def folder(self) -> Path:
        """Raises `OSError` where none can be made."""
        while self._made is None:
            self._parent.mkdir(parents=True, exist_ok=True)
            clear(self._parent)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._parent))
            with contextlib.suppress(FileNotFoundError):  # somebody took it for one of the dead
                lock = os.open(folder, os.O_RDONLY)
                fcntl.flock(lock, fcntl.LOCK_SH)
                if folder.exists():
                    self._made = folder, lock
                else:
                    os.close(lock)
        return self._made[0]

    def remove(self) -> None:
        """Removes the folder, if there is one; another is made when one is asked for again."""
        if self._made is not None:
            shutil.rmtree(self._made[0], ignore_errors=True)
            os.close(self._made[1])
            self._made = None


def clear(parent: Path) -> None:
    """Removes the folders whose processes are dead, as far as this user may."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
