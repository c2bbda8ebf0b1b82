"""Where results live: a folder or a URL, under which every finished task is one file named by the task's id.

    store.json                          {"format": 3}
    rows/<task>.parquet                 scores; provenance in the file's metadata
    baselines/<task>.parquet            the unedited model's outputs
    artefacts/<task>.safetensors        what other tasks need: second moments, trained editors, streams of edits
    checkpoints/<task>.safetensors      training that was cut short, and goes on from here
    failures/<task>.json                why a task was given up
    campaigns/<campaign>.json           what was planned, enough to report without planning again
    damaged/...                         results that could not be read any more
    driver.json                         which process runs a campaign into the store just now

Files appear whole or not at all, writing one twice is harmless, and a result carries a digest of itself: one that is
damaged counts as missing. So any number of processes may write to a store, and running a campaign again does just what
is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from cluster.scheduler.graph import cull
from cluster.store.checksums import damage_of_table, damage_of_tensors, seal_tensors, sealed_table
from cluster.store.files import MARKER, open_files
from cluster.store.lease import PATIENCE, DriverRecord, Lease, hold, read_driver
from cluster.store.records import (
    ROW_SCHEMA,
    CampaignRecord,
    Damaged,
    DatasetRecord,
    Failure,
    Output,
    ResultKey,
    Standing,
    TaskRecord,
)
from editors.core.errors import InputError, StoreError
from evaluators.cases import Skipped

FORMAT = 3
PROVENANCE = b"editfleet"
LARGE = 64 << 20  # bytes; larger artefacts are read whole only by who needs them
THREADS = {False: 4, True: 16}  # of local and remote stores; the latter mostly wait
SUFFIXES = {"rows": ".parquet", "baselines": ".parquet", "artefacts": ".safetensors", "checkpoints": ".safetensors",
            "failures": ".json", "campaigns": ".json"}
T = TypeVar("T")

__all__ = [
    "FORMAT",
    "PROVENANCE",
    "ROW_SCHEMA",
    "CampaignRecord",
    "Damaged",
    "DatasetRecord",
    "Failure",
    "Output",
    "ResultKey",
    "Standing",
    "Store",
    "StoreError",
    "TaskRecord",
]


class Store:
    """A store that exists. `Store.create` makes one, or opens it for writing; `Store.open` only reads.

    `root` is its absolute path or its URL. All methods raise `StoreError` where the store itself fails.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._files = open_files(root)
        self.root = self._files.root

    @classmethod
    def create(cls, place: str | os.PathLike[str]) -> Store:
        """Opens the store at a path or URL for writing; makes it where there is nothing yet.

        Raises `InputError` for a place that cannot be written, holds something else, or is of another format.
        """
        store = cls(place)
        try:
            occupied = store._files.occupied()
            if store._files.exists(MARKER):  # asked last: others may be making this very store
                cls.open(place)
            elif occupied:
                raise InputError(f"'{place}' is not a store but has files in it; choose an empty or a new folder")
            store._files.found(json.dumps({"format": FORMAT}).encode(), [*SUFFIXES, "damaged"])
            store.probe()
        except StoreError as error:
            raise InputError(str(error)) from error
        return cls.open(place)

    @classmethod
    def open(cls, place: str | os.PathLike[str]) -> Store:
        """Opens an existing store. Raises `InputError` where there is none, or one of another format."""
        store = cls(place)
        try:
            found = json.loads(store._files.read(MARKER))
        except FileNotFoundError:
            raise InputError(f"there is no store at '{place}' (no {MARKER}); `editfleet run CAMPAIGN --out {place}` "
                             "makes one") from None
        except StoreError as error:
            raise InputError(str(error)) from error
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read '{store.root}/{MARKER}': {error}") from error
        version = found.get("format") if isinstance(found, dict) else None
        if version != FORMAT:
            raise InputError(f"store '{place}' has format {version!r}, and this version of EditFleet reads {FORMAT}; "
                             "choose another folder, or the version that wrote it")
        return store

    @classmethod
    def occupied(cls, place: str | os.PathLike[str]) -> bool:
        """Whether there is anything at a path or URL."""
        return open_files(place).occupied()

    def probe(self) -> None:
        """Tells whether the store can be used: raises `StoreError` unless a small file can be written and read."""
        name, content = f".probe-{uuid.uuid4().hex}", uuid.uuid4().bytes
        self._files.write(name, content)
        try:
            found = self._files.read(name)
        except OSError as error:
            found = str(error).encode()
        self._files.remove(name)
        if found != content:
            raise StoreError(f"store '{self.root}' does not give back what is written to it; see that its disk works")

    def lease(self, campaign: str, patience: float = PATIENCE) -> AbstractContextManager[Lease]:
        """Keeps other drivers off the store during the block; see `cluster.store.lease.hold`."""
        return hold(self._files, campaign, patience)

    def driver(self) -> DriverRecord | None:
        """Who runs a campaign into the store, or was killed doing it; None where nobody does."""
        return read_driver(self._files)

    # --- results of tasks

    def has(self, key: ResultKey) -> bool:
        """Whether the result is there and sound; in a remote store, whether it is there."""
        return self._files.exists(_name(key)) if self._files.remote else self._damage(key, quick=True) is None

    def write_table(self, key: ResultKey, table: pa.Table, provenance: dict[str, Any]) -> None:
        """Writes a table; how it came about goes into the file's metadata."""
        metadata = {**(table.schema.metadata or {}), PROVENANCE: json.dumps(provenance).encode()}
        self._files.write(_name(key), sealed_table(table.replace_schema_metadata(metadata), _name(key)))

    def read_table(self, key: ResultKey) -> pa.Table:
        """Reads a result. Raises `Damaged` where it is missing or damaged."""
        return self._read_table(key).read(use_threads=False)

    @contextmanager
    def new_artefact(self, key: ResultKey) -> Iterator[Path]:
        """Yields a path to write a safetensors file to; it appears under its name when the block ends well."""
        with self._files.new(_name(key)) as sealed:
            written = sealed.with_name(f"{sealed.name}.unsealed")
            try:
                yield written
                seal_tensors(written, sealed, _name(key))
            finally:
                with contextlib.suppress(OSError):
                    written.unlink(missing_ok=True)

    def local(self, key: ResultKey) -> Path:
        """A path to read a result at. Raises `Damaged` where it is missing or damaged."""
        reason = self._damage(key)
        if reason and self._files.remote:
            reason = self._damage(key, anew=True)  # only the copy here may be damaged
        if reason:
            raise Damaged(key, reason)
        return self._files.fetch(_name(key))

    def checkpoint(self, key: ResultKey) -> AbstractContextManager[Path]:
        """Yields a path where a task that takes long may leave how far it is, and finds what it left the last time."""
        return self._files.working(_place("checkpoints", key.id))

    def done(self, keys: Iterable[ResultKey]) -> set[str]:
        """Ids of the results that are there. Damaged ones are set aside; in a remote store, their readers find them."""
        keys = list(keys)
        sizes = {output: self._files.sizes(output) for output in {key.output for key in keys}}
        there = [key for key in keys if _name(key).partition("/")[2] in sizes[key.output]]

        def check(key: ResultKey) -> str | None:
            if self._files.remote:
                return None if sizes[key.output][_name(key).partition("/")[2]] else "it is empty"
            return self._damage(key, quick=True)

        reasons = self._side_by_side(check, there)
        for key, reason in zip(there, reasons, strict=True):
            if reason:
                self._quarantine_if_possible(key)
        return {key.id for key, reason in zip(there, reasons, strict=True) if not reason}

    def remove(self, key: ResultKey) -> None:
        """Removes a result, if it is there."""
        self._files.remove(_name(key))

    def forget(self, key: ResultKey) -> None:
        """Removes the copy of a remote result that this machine keeps to read it again."""
        self._files.forget(_name(key))

    def quarantine(self, key: ResultKey) -> None:
        """Moves a damaged result to `damaged/`; one that is sound, because it has been made again, stays."""
        if self._damage(key, anew=True):
            self._files.move(_name(key), f"damaged/{key.output}-{key.id}-{uuid.uuid4().hex[:8]}{SUFFIXES[key.output]}")

    def rows(self, tasks: Iterable[TaskRecord]) -> pa.Table:
        """The rows of all of these tasks that are done. Damaged results are set aside: ask `standing` afterwards."""
        def read(key: ResultKey) -> pa.Table | None:
            try:
                return self.read_table(key).replace_schema_metadata(None)
            except Damaged:
                self._quarantine_if_possible(key)
                return None

        tables = self._side_by_side(read, [task.key for task in tasks if task.output == "rows"])
        return pa.concat_tables([ROW_SCHEMA.empty_table(), *(table for table in tables if table is not None)])

    def provenance(self, key: ResultKey) -> dict[str, Any]:
        """How a table came about. Raises `Damaged` like `read_table`."""
        found: dict[str, Any] = json.loads(self._read_table(key).schema_arrow.metadata[PROVENANCE])
        return found

    def failed_cases(self, tasks: Iterable[TaskRecord]) -> Counter[Skipped]:
        """Cases that finished tasks could not edit or score, and in how many tasks."""
        def read(key: ResultKey) -> list[Skipped]:
            with contextlib.suppress(Damaged):
                return list(map(Skipped.model_validate, self.provenance(key)["failed"]))
            return []

        found = self._side_by_side(read, [task.key for task in tasks if task.output == "rows"])
        return Counter(case for cases in found for case in cases)

    def _read_table(self, key: ResultKey) -> pq.ParquetFile:
        try:
            data = self._files.read(_name(key))
        except OSError as error:
            raise Damaged(key, self._unreadable(error)) from error
        if reason := damage_of_table(data, _name(key)):
            raise Damaged(key, reason)
        return pq.ParquetFile(pa.BufferReader(data))

    def _damage(self, key: ResultKey, *, quick: bool = False, anew: bool = False) -> str | None:
        """What is wrong with a result, `quick` without reading a large one; None where nothing is."""
        try:
            if key.output != "artefacts":
                return damage_of_table(self._files.read(_name(key)), _name(key))
            path = self._files.fetch(_name(key), anew)
            with self._files.reading():
                return damage_of_tensors(path, _name(key), quick=quick and path.stat().st_size > LARGE)
        except OSError as error:
            return self._unreadable(error)

    def _unreadable(self, error: OSError) -> str:
        self._files.check()
        return f"it cannot be read: {error.strerror}"

    def _side_by_side(self, read: Callable[[ResultKey], T], keys: list[ResultKey]) -> list[T]:
        with ThreadPoolExecutor(THREADS[self._files.remote]) as threads:
            return list(threads.map(read, keys))

    def _quarantine_if_possible(self, key: ResultKey) -> None:
        with contextlib.suppress(StoreError):  # who only reads may not be allowed to
            self.quarantine(key)

    # --- campaigns and what became of them

    def write_campaign(self, record: CampaignRecord) -> None:
        self._files.write(_place("campaigns", record.digest), record.model_dump_json().encode())

    def campaigns(self) -> list[CampaignRecord]:
        """Every campaign ever run into this store, the last one run first."""
        records = []
        for name in self._files.sizes("campaigns"):
            try:
                records.append(CampaignRecord.model_validate_json(self._files.read(f"campaigns/{name}")))
            except (OSError, ValidationError) as error:
                raise InputError(f"'{self.root}/campaigns/{name}' cannot be read; running its campaign again writes it "
                                 f"anew, and deleting it loses no result: {error}") from error
        return sorted(records, key=lambda record: (record.started, record.digest), reverse=True)

    def write_failure(self, failure: Failure) -> None:
        self._files.write(_place("failures", failure.task), failure.model_dump_json(indent=1).encode())

    def failed(self) -> set[str]:
        """Ids of the tasks that failed when last tried."""
        return {name.removesuffix(".json") for name in self._files.sizes("failures")}

    def clear_failures(self, tasks: Iterable[str]) -> None:
        """Forgets that these tasks failed, if they did."""
        for task in self.failed().intersection(tasks):
            self.clear_failure(task)

    def clear_failure(self, task: str) -> None:
        self._files.remove(_place("failures", task))

    def failure_place(self, task: str) -> str:
        """The path or URL of what says why a task failed."""
        return f"{self.root}/{_place('failures', task)}"

    def standing(self, record: CampaignRecord) -> Standing:
        to_do, _ = cull(record.tasks, self.done(task.key for task in record.tasks))
        done = frozenset(task.id for task in record.tasks if task.id not in to_do)
        failed = self.failed()
        failures = []
        for task in record.tasks:
            if task.id not in done and task.id in failed:
                with contextlib.suppress(OSError, ValidationError):
                    failures.append(Failure.model_validate_json(self._files.read(_place("failures", task.id))))
        return Standing(done, tuple(failures))


def _name(key: ResultKey) -> str:
    return _place(key.output, key.id)


def _place(folder: str, name: str) -> str:
    return f"{folder}/{name}{SUFFIXES[folder]}"
