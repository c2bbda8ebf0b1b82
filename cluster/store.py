"""Where results live: one folder, in which every finished task is one file named by the task's id.

    store.json                          {"format": 2}
    rows/<task>.parquet                 scores; provenance in the file's metadata
    baselines/<task>.parquet            the unedited model's outputs
    artefacts/<task>.safetensors        what other tasks need: second moments, trained editors, streams of edits
    checkpoints/<task>.safetensors      training that was cut short, and goes on from here
    failures/<task>.json                why a task was set aside
    campaigns/<campaign>.json           what was planned, enough to report without planning again

Files appear whole or not at all, writing one twice is harmless, and a file that cannot be read counts as missing. So
any number of processes may write to a store, and running a campaign again does just what is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from editors.core.errors import InputError
from evaluators.cases import Skipped

FORMAT = 2
PROVENANCE = b"editfleet"
UNREADABLE = (OSError, pa.ArrowException, SafetensorError)  # what reading a missing or damaged file raises
ROW_SCHEMA = pa.schema([("editor", pa.string()), ("model", pa.string()), ("dataset", pa.string()),
                        ("protocol", pa.string()), ("edits", pa.int64()), ("metric", pa.string()),
                        ("value", pa.float64()), ("case_id", pa.string()), ("subject", pa.string()),
                        ("task", pa.string()), ("seed", pa.int64()), ("order", pa.int64()),
                        ("texts", pa.list_(pa.string()))])

Output = Literal["rows", "baselines", "artefacts"]
_SUFFIX = {"rows": ".parquet", "baselines": ".parquet", "artefacts": ".safetensors", "checkpoints": ".safetensors",
           "failures": ".json", "campaigns": ".json"}


class Key(NamedTuple):
    """Names one task's result."""

    output: Output
    id: str


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class TaskRecord(_Record):
    """A planned task: `title` is for people, `edits` how many edits it makes."""

    id: str
    kind: str
    output: Output
    title: str
    edits: int

    @property
    def key(self) -> Key:
        return Key(self.output, self.id)


class DatasetRecord(_Record):
    name: str
    cases: int
    skipped: tuple[Skipped, ...]


class CampaignRecord(_Record):
    """A plan as the store keeps it; `started` is when the campaign was last run, `notes` what people should know,
    `sizes` how tasks were cut by the table of costs, of version `costs`."""

    name: str
    digest: str
    started: datetime
    datasets: tuple[DatasetRecord, ...]
    tasks: tuple[TaskRecord, ...]
    notes: tuple[str, ...] = ()
    sizes: Mapping[str, int] = Field(default_factory=dict)
    costs: int = 0


class Failure(_Record):
    """Why a task was set aside: the reason in full, and its last line."""

    task: str
    title: str
    reason: str

    @property
    def summary(self) -> str:
        return self.reason.strip().splitlines()[-1]


@dataclass(frozen=True)
class Standing:
    """Which tasks of a campaign are done, and which of the others were set aside when last tried."""

    done: frozenset[str]
    failures: tuple[Failure, ...]


class Store:
    """A store that exists. `Store.create` makes one, or opens it for writing; `Store.open` only reads."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def create(cls, path: Path | str) -> Store:
        """Opens the store at `path` for writing; makes it where there is nothing yet.

        Raises `InputError` for a folder that cannot be written, holds something else, or is of another format.
        """
        root = Path(path).absolute()
        store = cls(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            occupied = any(not entry.name.startswith(".") for entry in root.iterdir())
            if not (root / "store.json").exists():  # asked last: others may be making this very store
                if occupied:
                    raise InputError(f"'{path}' is not a store but has files in it; choose an empty or a new folder")
                store._write_text(root / "store.json", json.dumps({"format": FORMAT}))
            for folder in _SUFFIX:
                (root / folder).mkdir(exist_ok=True)
            with store._appears(root / "writable"):
                pass
            (root / "writable").unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to store '{path}': {error.strerror or error}") from error
        return cls.open(path)

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Opens an existing store. Raises `InputError` where there is none, or one of another format."""
        root = Path(path).absolute()
        try:
            found = json.loads((root / "store.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(f"there is no store at '{path}' (no store.json); `editfleet run CAMPAIGN --out {path}` "
                             "makes one") from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read '{root / 'store.json'}': {error}") from error
        version = found.get("format") if isinstance(found, dict) else None
        if version != FORMAT:
            raise InputError(f"store '{path}' has format {version!r}, and this version of EditFleet reads {FORMAT}; "
                             "choose another folder, or the version that wrote it")
        return cls(root)

    # --- results of tasks

    def has(self, key: Key) -> bool:
        """Whether the result is there and can be read. Tables are read whole, of tensors only the header."""
        path = self.path(key)
        try:
            if key.output == "artefacts":
                with safe_open(path, "np"):
                    return True
            self._read_table(path)
        except UNREADABLE:
            return False
        return True

    def path(self, key: Key) -> Path:
        return self._path(key.output, key.id)

    def write_table(self, key: Key, table: pa.Table, provenance: dict[str, Any]) -> None:
        """Writes a table; how it came about goes into the file's metadata."""
        metadata = {**(table.schema.metadata or {}), PROVENANCE: json.dumps(provenance).encode()}
        with self._appears(self.path(key)) as path:
            pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd", write_page_checksum=True)

    def read_table(self, key: Key) -> pa.Table:
        """Reads a result that `has`."""
        return self._read_table(self.path(key))

    @contextmanager
    def new_artefact(self, key: Key) -> Iterator[Path]:
        """Yields a path to write to; the file appears under its name when the block ends well."""
        with self._appears(self.path(key)) as path:
            yield path

    def checkpoint_path(self, key: Key) -> Path:
        """Where a task that takes long may leave how far it is."""
        return self._path("checkpoints", key.id)

    def done(self, keys: Iterable[Key]) -> set[str]:
        """Ids of the results that are there."""
        with ThreadPoolExecutor() as threads:
            found = threads.map(lambda key: key.id if self.has(key) else None, keys)
            return {task for task in found if task is not None}

    def rows(self, tasks: Iterable[TaskRecord]) -> pa.Table:
        """The rows of all of these tasks that are done."""
        tables = []
        for task in tasks:
            if task.output == "rows":
                with contextlib.suppress(*UNREADABLE):
                    tables.append(self._read_table(self.path(task.key)).replace_schema_metadata(None))
        return pa.concat_tables([ROW_SCHEMA.empty_table(), *tables])

    def provenance(self, key: Key) -> dict[str, Any]:
        """How a table came about. Raises one of `UNREADABLE` where there is none."""
        found: dict[str, Any] = json.loads(pq.read_schema(self.path(key)).metadata[PROVENANCE])
        return found

    def failed_cases(self, tasks: Iterable[TaskRecord]) -> Counter[Skipped]:
        """Cases that finished tasks could not edit or score, and in how many tasks."""
        failed: Counter[Skipped] = Counter()
        for task in tasks:
            if task.output == "rows":
                with contextlib.suppress(*UNREADABLE):
                    failed.update(map(Skipped.model_validate, self.provenance(task.key)["failed"]))
        return failed

    # --- campaigns and what became of them

    def write_campaign(self, record: CampaignRecord) -> None:
        self._write_text(self._path("campaigns", record.digest), record.model_dump_json())

    def campaigns(self) -> list[CampaignRecord]:
        """Every campaign ever run into this store, the last one run first."""
        records = []
        for path in (self.root / "campaigns").glob("[!.]*.json"):
            try:
                records.append(CampaignRecord.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError) as error:
                raise InputError(f"'{path}' cannot be read; running its campaign again writes it anew, and deleting it "
                                 f"loses no result: {error}") from error
        return sorted(records, key=lambda record: (record.started, record.digest), reverse=True)

    def write_failure(self, failure: Failure) -> None:
        self._write_text(self.failure_path(failure.task), failure.model_dump_json(indent=1))

    def clear_failure(self, task: str) -> None:
        self.failure_path(task).unlink(missing_ok=True)

    def failure_path(self, task: str) -> Path:
        return self._path("failures", task)

    def standing(self, record: CampaignRecord) -> Standing:
        done = frozenset(self.done(task.key for task in record.tasks))
        failures = []
        for task in record.tasks:
            if task.id not in done:
                with contextlib.suppress(OSError, ValidationError):
                    failures.append(Failure.model_validate_json(self.failure_path(task.id).read_bytes()))
        return Standing(done, tuple(failures))

    # --- files

    def _path(self, folder: str, name: str) -> Path:
        return self.root / folder / (name + _SUFFIX[folder])

    @staticmethod
    def _read_table(path: Path) -> pa.Table:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if PROVENANCE not in (file.metadata.metadata or {}):
                raise pa.ArrowInvalid(f"'{path}' does not say how it came about")
            return file.read()

    def _write_text(self, path: Path, text: str) -> None:
        with self._appears(path) as partial:
            partial.write_text(text, encoding="utf-8")

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
            partial.unlink(missing_ok=True)
