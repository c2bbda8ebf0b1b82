"""SHA-256 of what a store keeps, as 64 hexadecimal digits."""

from __future__ import annotations

import hashlib
from pathlib import Path

LARGE = 64 << 20  # bytes; larger files are read once by a process, however many of its tasks use them


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class FileChecksums:
    """Of files, which need not fit in memory. That of a large one is remembered until the file is another."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def sha256(self, path: Path) -> str:
        """Raises `OSError` where the file cannot be read."""
        about = path.stat()
        version = path, about.st_size, about.st_mtime_ns
        if version in self._known:
            return self._known[version]
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if about.st_size > LARGE:
            self._known[version] = found
        return found
