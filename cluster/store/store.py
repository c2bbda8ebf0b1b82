"""Where results live: a folder or a URL, under which every finished task is two files named by the task's id.

    store.json                          {"format": 5}
    rows/<task>.parquet                 scores
    answers/<task>.parquet              what models said to the questions that were scored, where that is kept
    baselines/<task>.parquet            the unedited model's outputs
    artefacts/<task>.safetensors        what other tasks need: second moments, trained editors, streams of edits
    provenance/<task>.json              what belongs to one of these: its size and checksum, the cases that could not be
                                        used, what it was made of and with, and what that took
    checkpoints/<task>.safetensors      training that was cut short, and goes on from here
    failures/<task>.json                why a task was given up
    campaigns/<campaign>.json           what was planned, enough to report without planning again
    logs/<start>-<run>-<part>.log       what happened, a line per event: a megabyte a part
    damaged/...                         results that could not be read any more, with their provenance
    driver.json                         which process runs a campaign into the store just now

Files appear whole or not at all, and a result is there once its provenance is, which is written last. Answers are part
of a result that names them there; a result whose answers are missing or damaged is as good as one that never had any.

How far a campaign is, which cases failed and how long tasks took is read from these small files alone; a result's bytes
are held against its checksum where they are used, and one that is damaged counts as missing. Of the same task all write
the same bytes: any number of processes may write to a store, and running a campaign again does just what is missing.
"""

from __future__ import annotations

import copy
import json
import os
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from cluster.scheduler.graph import cull
from cluster.store.errors import StoreError
from cluster.store.files import MARKER, Files
from cluster.store.lease import FILE as DRIVER
from cluster.store.lease import PATIENCE, DriverRecord, Lease, hold, read_driver
from cluster.store.local import LocalFiles
from cluster.store.records import (
    ANSWER_SCHEMA,
    ROW_SCHEMA,
    CampaignRecord,
    DatasetRecord,
    Failure,
    Output,
    ResultKey,
    Standing,
    TaskRecord,
)
from cluster.store.results import SUFFIXES, Results, path_in
from cluster.store.timed import Took, timed
from editors.core.errors import InputError, first_problem, quoted
from editors.core.files import expanded
from editors.core.places import scrubbed, shown

FORMAT = 5

__all__ = [
    "ANSWER_SCHEMA",
    "FORMAT",
    "ROW_SCHEMA",
    "CampaignRecord",
    "DatasetRecord",
    "Failure",
    "Output",
    "ResultKey",
    "Standing",
    "Store",
    "TaskRecord",
]


class Store(Results):
    """A store that exists. `Store.create` makes one, or opens it for writing; `Store.open` only reads.

    `root` is its absolute path or its URL, and `place` what may be shown of it. All methods raise `StoreError`
    where the store itself fails.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(open_files(root))
        self.root, self.place = self._files.root, self._files.place

    @classmethod
    def create(cls, root: str | os.PathLike[str]) -> Store:
        """Opens the store at a path or URL for writing; makes it where there is nothing yet.

        Raises `InputError` where that cannot be written, holds something else, or is of another format.
        """
        store, place = cls(root), shown(os.fspath(root))
        try:
            occupied = store._files.occupied()
            if store._files.exists(MARKER):  # asked last: others may be making this very store
                cls.open(root)
            elif occupied:
                raise InputError(f"'{place}' is not a store but has files in it; choose an empty or a new folder")
            store._files.create([*SUFFIXES, "damaged"], json.dumps({"format": FORMAT}).encode())
            store.probe()
        except StoreError as error:
            raise InputError(str(error)) from error
        return cls.open(root)

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> Store:
        """Opens an existing store. Raises `InputError` where there is none, or one of another format."""
        store, place = cls(root), shown(os.fspath(root))
        try:
            found = from_json(store._files.read(MARKER))
        except FileNotFoundError:
            raise InputError(f"there is no store at '{place}' (no {MARKER}); `editfleet run CAMPAIGN --out {place}` "
                             "makes one") from None
        except StoreError as error:
            raise InputError(str(error)) from error
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read '{store.place}/{MARKER}': {scrubbed(str(error), store.root)}") from error
        version = found.get("format") if isinstance(found, dict) else None
        if version != FORMAT:
            raise InputError(f"store '{place}' has format {version!r}, and this version of EditFleet reads {FORMAT}; "
                             "choose another folder, or the version that wrote it")
        return store

    @classmethod
    def occupied(cls, root: str | os.PathLike[str]) -> bool:
        """Whether there is anything at a path or URL."""
        return open_files(root).occupied()

    def timed(self, took: Took) -> Store:
        """The same store, which tells how long what it does takes."""
        other = copy.copy(self)
        other._files = timed(self._files, took)
        return other

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
            raise StoreError(f"store '{self.place}' does not give back what is written to it; see that its disk works")

    def tidy(self) -> int:
        """Removes what processes that were killed left half written; how many files. Raises `StoreError`."""
        return self._files.tidy([".", *SUFFIXES, "damaged"])

    def lease(self, campaign: str, patience: float = PATIENCE) -> AbstractContextManager[Lease]:
        """Keeps other drivers off the store during the block; see `cluster.store.lease.hold`."""
        return hold(self._files, campaign, patience)

    def driver(self) -> DriverRecord | None:
        """Who runs a campaign into the store, or was killed doing it; None where nobody does."""
        return read_driver(self._files)

    # --- campaigns and what became of them

    def write_campaign(self, record: CampaignRecord) -> None:
        self._files.write(path_in("campaigns", record.digest), to_json(record))

    def drop_campaign(self, digest: str) -> None:
        """Removes a campaign's record, if it is there; its results stay."""
        self._files.remove(path_in("campaigns", digest))

    def campaigns(self) -> list[CampaignRecord]:
        """Every campaign ever run into this store, the last one run first; of records that cannot be read, `strays`
        tells."""
        found = [self._campaign(name) for name in self._files.sizes("campaigns") if name.endswith(".json")]
        return sorted((record for record in found if isinstance(record, CampaignRecord)),
                      key=lambda record: (record.started, record.digest), reverse=True)

    def _campaign(self, name: str) -> CampaignRecord | str:
        """The record in a file, or why it is none."""
        try:
            record = CampaignRecord.model_validate_json(self._files.read(f"campaigns/{name}"))
        except OSError as error:
            return str(error.strerror or error)
        except ValidationError as error:
            return first_problem(error)
        return record if path_in("campaigns", record.digest) == f"campaigns/{name}" else "it is a copy of another"

    def strays(self) -> list[str]:
        """What is in the store and cannot be its own, or not any more, a line each: it is ignored, and nothing is lost
        with it."""
        lines = [f"{self.place}/{name} is none of the store's: it is ignored" for name in self._files.entries()
                 if name not in (MARKER, DRIVER, "damaged", *SUFFIXES)]
        for folder, suffix in SUFFIXES.items():
            for name, is_file in self._files.entries(folder).items():
                if not is_file or not name.endswith(suffix):
                    lines.append(f"{self.place}/{folder}/{name} is none of the store's: it is ignored")
                elif folder == "campaigns" and isinstance(problem := self._campaign(name), str):
                    lines.append(f"{self.place}/{folder}/{name} cannot be read ({problem}): it is ignored; running its "
                                 "campaign again writes it anew")
        return lines

    def write_log(self, name: str, text: str) -> None:
        self._files.write(path_in("logs", name), text.encode())

    def logs(self) -> list[str]:
        """The paths or URLs of what was logged, the oldest first."""
        return [f"{self.place}/logs/{name}" for name in sorted(self._files.sizes("logs"))]

    def write_failure(self, failure: Failure) -> None:
        self._files.write(path_in("failures", failure.task), failure.model_dump_json(indent=1).encode())

    def failed(self) -> set[str]:
        """Ids of the tasks that failed when last tried."""
        return {name.removesuffix(".json") for name in self._files.sizes("failures")}

    def clear_failures(self, tasks: Iterable[str]) -> None:
        """Forgets that these tasks failed, if they did."""
        for task in self.failed().intersection(tasks):
            self.clear_failure(task)

    def clear_failure(self, task: str) -> None:
        self._files.remove(path_in("failures", task))

    def failure_path(self, task: str) -> str:
        """The path or URL of what says why a task failed."""
        return f"{self.place}/{path_in('failures', task)}"

    def standing(self, record: CampaignRecord) -> Standing:
        to_do, _ = cull(record.tasks, self.done(task.key for task in record.tasks))
        done = frozenset(task.id for task in record.tasks if task.id not in to_do)
        failed = self.failed()
        failures = []
        for task in record.tasks:
            if task.id not in done and task.id in failed:
                try:
                    failures.append(Failure.model_validate_json(self._files.read(path_in("failures", task.id))))
                except FileNotFoundError:
                    pass  # it has just been cleared
                except (OSError, ValidationError):
                    failures.append(Failure(task=task.id, title=task.title, reason="what it said cannot be read"))
        return Standing(done, tuple(failures))


def open_files(root: str | os.PathLike[str]) -> Files:
    """The files at a path or URL, where there need be none yet. Raises `InputError` for a URL that nothing can open, or
    that other processes would find nothing at."""
    url = os.fspath(root)
    protocol, separator, rest = url.partition("://")
    if not protocol.strip() or (separator and not rest.strip()) or "\0" in url:
        raise InputError(f"{quoted(shown(url))} is no place for a store: name a folder, or a URL such as s3://BUCKET/FOLDER")
    if not separator or protocol in ("file", "local"):
        return LocalFiles(expanded(rest if separator else url).absolute())
    return Files(url.rstrip("/"))
