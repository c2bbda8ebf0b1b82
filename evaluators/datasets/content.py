"""What files hold, as digests: those that workers read later must still be what was planned."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable
from functools import cache

from editors.core.errors import InputError
from editors.core.files import expanded
from editors.core.places import shown
from evaluators.datasets.reading import opened_bytes

PIECE = 1 << 22


def file_digest(name: str) -> str:
    """24 hexadecimal digits that identify what a file or URL holds. Raises `InputError` where it cannot be read."""
    return on_content(name, _digest)


def check_content(name: str, planned: str, read: Callable[[str], str]) -> None:
    """Raises `InputError` where a file is not the one that a campaign was planned with, by the digest that `read` gives
    it, or cannot be read any more."""
    place, cure = shown(name), "put the same file there, or run the campaign again, which plans with the file as it is"
    try:
        found = read(name)
    except InputError as error:
        raise InputError(f"'{place}' could be read when the campaign was planned, and cannot be now, on this node "
                         f"({error}); {cure}") from error
    if found != planned:
        raise InputError(f"'{place}' is not what it was when the campaign was planned, or is another file on this "
                         f"node; {cure}")


def on_content(name: str, read: Callable[[str], str]) -> str:
    """`read(name)`, kept for as long as a local file stays as it is; a URL is read each time."""
    if "://" in name or not os.path.exists(path := expanded(name)):
        return read(name)
    about = path.stat()
    return _kept(name, read, (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))


@cache
def _kept(name: str, read: Callable[[str], str], _state: Hashable) -> str:
    return read(name)


def _digest(name: str) -> str:
    running = hashlib.sha256()
    with opened_bytes(name) as file:
        while piece := file.read(PIECE):
            running.update(piece)
    return running.hexdigest()[:24]
