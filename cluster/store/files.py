"""Files of a store that appear whole or not at all, wherever fsspec can write; `local` has those of a folder.

Names are relative and have slashes. Trouble with the store itself is a `StoreError` that names the cure; only reads
raise `FileNotFoundError`, and `OSError` for a file on a broken disk, which concern that one file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from cluster.store.errors import StoreError
from editors.core.errors import InputError
from editors.core.places import holds_secrets, scrubbed, shown

MARKER = "store.json"  # a store is where this file is
OF_DISKS = ("lost+found",)  # folders that are nobody's
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
PRIVATE = {"memory", "zip", "tar", "libarchive", "http", "https", "data", "reference"}
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # of the package, by protocol
#: s3fs makes each request up to five times more, and waits up to 20 seconds: a server that is silent is given up after
#: some minutes. AWS_MAX_ATTEMPTS wins.
S3_ATTEMPTS = {"mode": "standard", "total_max_attempts": 3}


class WorkingFile(NamedTuple):
    """A file at `path` that is read, replaced and removed; `changed` is to be called after each change."""

    path: Path
    changed: Callable[[], None]


class Files:
    """Files in an object store, or whatever else fsspec has a driver for: a put is atomic there, folders need not be
    made, and a driver may raise anything."""

    remote = True  # whether to read a file is to fetch it
    faults: type[Exception] | tuple[type[Exception], ...] = Exception  # what the driver raises when it fails

    def __init__(self, root: str) -> None:
        self.root, protocol = root, root.partition("://")[0]
        if "?" in self.place or (protocol in EXTRAS and holds_secrets(root)):  # the driver takes them for names
            raise InputError(f"'{self.place}' is no place for a store: keys and signatures cannot be in its address; "
                             "put them where the driver looks for them, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        try:
            self._fs, self._path = fsspec.core.url_to_fs(root, use_listings_cache=False, **_options(protocol))
            if protocol in PRIVATE:
                raise ValueError("no other process can see or change what is there")
        except ImportError as error:
            cure = f"pip install 'editfleet[{EXTRAS[protocol]}]'" if protocol in EXTRAS else str(error)
            raise InputError(f"a store at '{self.place}' needs a package that is not installed: {cure}") from error
        except Exception as error:  # a driver may raise anything
            raise InputError(f"'{self.place}' is no place for a store: {scrubbed(str(error), root)}. It may be a "
                             "folder, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, or another URL that fsspec can open"
                             ) from error
        self._cache = _cache_folder() / hashlib.sha256(self.place.encode()).hexdigest()[:16]

    @property
    def place(self) -> str:
        """The path or URL as messages and files may have it."""
        return shown(self.root)

    # --- reading

    def occupied(self) -> bool:
        """Whether there is anything."""
        return bool(self._list(self._path))

    def exists(self, name: str) -> bool:
        try:
            return self.size(name) >= 0
        except FileNotFoundError:
            return False

    def size(self, name: str) -> int:
        """In bytes."""
        with self.reading():  # not the driver's own `exists`: some take being out of reach for absence
            return int(self._fs.info(self._at(name))["size"] or 0)

    def sizes(self, folder: str) -> dict[str, int]:
        """The bytes in each file of a folder, by its name there; asks once for all."""
        found = self._list(self._at(folder))
        if not found:
            self.check()
        return {name: int(entry["size"] or 0) for name, entry in found.items() if entry["type"] == "file"}

    def entries(self, folder: str = "") -> dict[str, bool]:
        """Whether each thing in a folder, by its name there, is a file; by default of the store's own folder."""
        found = self._list(self._at(folder) if folder else self._path)
        return {name: entry["type"] == "file" for name, entry in found.items()}

    def read(self, name: str) -> bytes:
        with self.reading():
            return bytes(self._fs.cat_file(self._at(name)))

    def fetch(self, name: str, anew: bool = False) -> Path:
        """A path to read the file at; what was fetched before is used again unless it is asked for `anew`."""
        path = self._cache / name
        if anew or not path.exists():
            with self.reading():
                path.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
                    fetched = Path(folder) / path.name
                    self._fs.get_file(self._at(name), str(fetched))
                    fetched.replace(path)
        return path

    def forget(self, name: str) -> None:
        """Removes what was fetched of a file, if that is a copy."""
        with contextlib.suppress(OSError):
            (self._cache / name).unlink(missing_ok=True)

    # --- writing

    def create(self, folders: list[str], marker: bytes) -> None:
        """Makes a new store. Raises `StoreError`."""
        if not self.exists(MARKER):
            try:
                self._fs.pipe_file(self._at(MARKER), marker)
            except Exception as error:
                raise self.trouble("write to", error) from error

    def write(self, name: str, data: bytes) -> None:
        with self.writing():
            self._fs.pipe_file(self._at(name), data)

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Yields a path to write to, in a folder where other files may be; it becomes `name` when the block ends well.
        What the block raises is its own matter, unless it says that there is no room."""
        of_block: Exception | None = None
        try:
            with self._staged(name) as path:
                try:
                    yield path
                except Exception as error:
                    of_block = error
                    raise
                self.check()
                self._publish(path, name)
        except StoreError:
            raise
        except Exception as error:
            self.check()
            if error is of_block and trouble_number(error) not in NO_ROOM:
                raise
            raise self.trouble("write to", error) from error

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with self.writing(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    def move(self, name: str, to: str) -> None:
        """Moves a file, if it is there."""
        with self.writing(), contextlib.suppress(FileNotFoundError):
            self._fs.cp_file(self._at(name), self._at(to))
            self._fs.rm_file(self._at(name))

    def tidy(self, folders: Iterable[str]) -> int:
        """Removes files that nobody will finish; how many. Here there are none: a put is atomic."""
        return 0

    @contextmanager
    def working(self, name: str) -> Iterator[WorkingFile]:
        """Yields a file that the block may change, as it was left. Failing to keep it is no harm: it only saves work.
        """
        with self._staged(name) as path:
            with contextlib.suppress(FileNotFoundError), self.reading():
                self._fs.get_file(self._at(name), str(path))
            yield WorkingFile(path, partial(self._keep, path, name))

    def _keep(self, path: Path, name: str) -> None:
        with contextlib.suppress(StoreError):
            if path.exists():
                with self.writing():
                    self._publish(path, name)
            else:
                self.remove(name)

    @contextmanager
    def exclusively(self) -> Iterator[bool]:
        """Keeps others that also ask out of the block; yields False where it cannot."""
        yield False

    # --- trouble

    @contextmanager
    def reading(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(errno.ENOENT, "there is no such file") from error
        except self.faults as error:
            if getattr(error, "errno", None) in (errno.EIO, errno.EISDIR):
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
            raise StoreError(f"store '{self.place}' was deleted or moved while it was used (there is no {MARKER} any "
                             "more); put it back, or start anew with another --out")

    def trouble(self, doing: str, error: Exception) -> StoreError:
        if trouble_number(error) in NO_ROOM:  # an object store has no such errors
            told = scrubbed(str(error), self.root)
            return StoreError(f"cannot keep files of store '{self.place}' on this machine: {told}; make room in "
                              f"'{self._cache}' and '{tempfile.gettempdir()}', or set XDG_CACHE_HOME and TMPDIR")
        if isinstance(error, FileNotFoundError):
            cure = "make that bucket first, or choose another --out"
        else:
            cure = (f"see that it can be reached from {socket.gethostname()}, and that the credentials there let you "
                    "read and write it")
        return self._failed(doing, error, cure)

    def _failed(self, doing: str, error: Exception, cure: str) -> StoreError:
        told = scrubbed(str(getattr(error, "strerror", None) or error), self.root).rstrip(".")
        return StoreError(f"cannot {doing} store '{self.place}': {told}; {cure}. "
                          "Then run the same command again: what is done is kept")

    # --- how this is done here

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _list(self, path: str) -> dict[str, dict[str, Any]]:
        """What the driver knows of all that is in a folder, by name, but for hidden files and what disks have."""
        try:
            with self.reading():
                found = self._fs.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        # A driver lists a file as itself, and may list a folder in itself.
        named = {entry["name"].rpartition("/")[2]: entry for entry in found
                 if entry["name"].strip("/") != path.strip("/")}
        return {name: entry for name, entry in named.items()
                if name and not name.startswith(".") and name not in OF_DISKS}

    @contextmanager
    def _staged(self, name: str) -> Iterator[Path]:
        """Yields a path for what is to become `name`."""
        with tempfile.TemporaryDirectory(prefix="editfleet-") as folder:
            yield Path(folder) / Path(name).name

    def _publish(self, path: Path, name: str) -> None:
        self._fs.put_file(str(path), self._at(name))


def trouble_number(error: BaseException) -> int:
    """The errno of an error, also of one that a library in Rust raises with the number in its text; else 0."""
    number = getattr(error, "errno", None)
    told = re.search(r"\(os error (\d+)\)", str(error))
    return number if isinstance(number, int) else int(told[1]) if told else 0


def _options(protocol: str) -> dict[str, Any]:
    """What a driver is told in addition."""
    if EXTRAS.get(protocol) != "s3" or "AWS_MAX_ATTEMPTS" in os.environ:
        return {}
    return {"config_kwargs": {"retries": S3_ATTEMPTS}}


def _cache_folder() -> Path:
    """Where the workers of a machine share what they fetch."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if os.access(folder if folder.exists() else folder.parent, os.W_OK):
        return folder / "editfleet"
    return Path(tempfile.gettempdir()) / f"editfleet-{os.getuid()}"  # a container may have no home
