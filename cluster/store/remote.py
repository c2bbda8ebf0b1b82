"""Files of a store under a URL: in S3, Google Cloud Storage, or whatever else fsspec has a driver for."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.store.files import MARKER, NO_ROOM, Files, trouble_number
from editors.core.errors import InputError, StoreError

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # of the package, by protocol
#: s3fs makes each request up to five times more, and waits up to 20 seconds: a server that is silent is given up after
#: some minutes. AWS_MAX_ATTEMPTS wins.
S3_ATTEMPTS = {"mode": "standard", "total_max_attempts": 3}
MIRROR_SECONDS = 60.0  # between looks whether a working file has changed


class RemoteFiles(Files):
    """An object store, where a put is atomic and folders need not be made. Its driver may raise anything."""

    remote = True
    faults = Exception

    def __init__(self, root: str) -> None:
        import fsspec

        super().__init__(root)
        protocol = root.partition("://")[0]
        try:
            self._fs, self._path = fsspec.core.url_to_fs(root, use_listings_cache=False, **_options(protocol))
        except ImportError as error:
            cure = f"pip install 'editfleet[{EXTRAS[protocol]}]'" if protocol in EXTRAS else str(error)
            raise InputError(f"a store at '{root}' needs a package that is not installed: {cure}") from error
        except ValueError as error:
            raise InputError(f"'{root}' is no place for a store: {error}. It may be a folder, s3://BUCKET/FOLDER, "
                             "gs://BUCKET/FOLDER, or another URL that fsspec can open") from error
        self._cache = _cache_folder() / hashlib.sha256(root.encode()).hexdigest()[:16]

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def found(self, marker: bytes, folders: list[str]) -> None:
        try:
            if not self.exists(MARKER):
                self._fs.pipe_file(self._at(MARKER), marker)
        except StoreError:
            raise
        except Exception as error:
            raise self.trouble("write to", error) from error

    def occupied(self) -> bool:
        return bool(self._list(self._path))

    def exists(self, name: str) -> bool:
        try:
            with self.reading():  # not the driver's own `exists`: some take being out of reach for absence
                return bool(self._fs.info(self._at(name)))
        except FileNotFoundError:
            return False

    def read(self, name: str) -> bytes:
        with self.reading():
            return bytes(self._fs.cat_file(self._at(name)))

    def sizes(self, folder: str) -> dict[str, int]:
        found = ((entry["name"].rpartition("/")[2], entry) for entry in self._list(self._at(folder)))
        return {name: int(entry["size"] or 0) for name, entry in found if name and entry["type"] == "file"}

    def _list(self, path: str) -> list[dict[str, Any]]:
        try:
            with self.reading():
                return list(self._fs.ls(path, detail=True))
        except FileNotFoundError:
            return []

    def write(self, name: str, data: bytes) -> None:
        with self.writing():
            self._fs.pipe_file(self._at(name), data)

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="editfleet-") as folder:
            path = Path(folder) / Path(name).name
            yield path
            self.upload(path, name)

    def upload(self, path: Path, name: str) -> None:
        with self.writing():
            self._fs.put_file(str(path), self._at(name))

    def remove(self, name: str) -> None:
        with self.writing(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    def move(self, name: str, to: str) -> None:
        with self.writing(), contextlib.suppress(FileNotFoundError):
            self._fs.cp_file(self._at(name), self._at(to))
            self._fs.rm_file(self._at(name))

    def fetch(self, name: str, anew: bool = False) -> Path:
        path = self._cache / name
        if anew or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
                partial = Path(folder) / path.name
                self.download(name, partial)
                partial.replace(path)
        return path

    def forget(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (self._cache / name).unlink(missing_ok=True)

    def download(self, name: str, path: Path) -> None:
        with self.reading():
            self._fs.get_file(self._at(name), str(path))

    @contextmanager
    def working(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="editfleet-") as folder:
            path = Path(folder) / Path(name).name
            with contextlib.suppress(FileNotFoundError):
                self.download(name, path)
            mirror = _Mirror(self, path, name)
            try:
                yield path
            finally:
                mirror.close()

    @contextmanager
    def exclusively(self) -> Iterator[bool]:
        yield False

    def trouble(self, doing: str, error: Exception) -> StoreError:
        if trouble_number(error) in NO_ROOM:  # an object store has no such errors
            return StoreError(f"cannot keep files of store '{self.root}' on this machine: {error}; make room in "
                              f"'{self._cache}' and '{tempfile.gettempdir()}', or set XDG_CACHE_HOME and TMPDIR")
        return super().trouble(doing, error)

    def _cure(self, error: Exception) -> str:
        if isinstance(error, FileNotFoundError):
            return "make that bucket first, or choose another --out"
        return (f"see that it can be reached from {socket.gethostname()}, and that the credentials there let you read "
                "and write it")


class _Mirror:
    """Uploads a local file whenever it has changed. Failing to is no harm: the file only saves work."""

    def __init__(self, files: RemoteFiles, path: Path, name: str) -> None:
        self._files, self._path, self._name = files, path, name
        self._mirrored = self._stamp()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._bring_up_to_date()

    def _watch(self) -> None:
        while not self._closed.wait(MIRROR_SECONDS):
            self._bring_up_to_date()

    def _bring_up_to_date(self) -> None:
        stamp = self._stamp()
        if stamp == self._mirrored:
            return
        with contextlib.suppress(StoreError):
            if stamp is None:
                self._files.remove(self._name)
            else:
                self._files.upload(self._path, self._name)
            self._mirrored = stamp

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _options(protocol: str) -> dict[str, Any]:
    """What a driver is told in addition."""
    if EXTRAS.get(protocol) != "s3" or "AWS_MAX_ATTEMPTS" in os.environ:
        return {}
    return {"config_kwargs": {"retries": S3_ATTEMPTS}}


def _cache_folder() -> Path:
    """Where the workers of a machine share what they fetch."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    if os.access(folder if folder.exists() else folder.parent, os.W_OK):
        return folder / "editfleet"
    return Path(tempfile.gettempdir()) / f"editfleet-{os.getuid()}"  # a container may have no home
