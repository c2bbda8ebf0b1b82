"""Results of tasks: each is one file, and a small one that says what it should hold and how it came about."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from pydantic_core import from_json

from cluster.store.checksums import FileChecksums, sha256
from cluster.store.errors import Damaged, StoreError
from cluster.store.files import Files, WorkingFile
from cluster.store.records import ANSWER_SCHEMA, ROW_SCHEMA, Provenance, ResultKey, TaskRecord
from cluster.store.tables import from_parquet, to_parquet
from editors.core.errors import first_problem
from evaluators.cases import Skipped

THREADS, REMOTE_THREADS = 4, 16  # the latter mostly wait
SUFFIXES = {"rows": ".parquet", "answers": ".parquet", "baselines": ".parquet", "artefacts": ".safetensors",
            "checkpoints": ".safetensors", "provenance": ".json", "failures": ".json", "campaigns": ".json",
            "logs": ".log"}
K = TypeVar("K")
T = TypeVar("T")


class Results:
    """The part of a `Store` that keeps results."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._checksums = FileChecksums()

    def has(self, key: ResultKey) -> bool:
        """Whether the result is there, and as long as it should be."""
        try:
            return _difference(self.provenance(key), self._files.size(_result(key))) is None
        except (Damaged, OSError):
            return False

    def done(self, keys: Iterable[ResultKey]) -> set[str]:
        """Ids of the results that are there. Those of another length are quarantined; in a remote store, where to ask
        for each takes long, only empty ones."""
        keys = list(keys)
        listed = {folder: self._files.sizes(folder) for folder in ("provenance", *sorted({key.output for key in keys}))}
        sizes = {key: listed[key.output][name] for key in keys if f"{key.id}.json" in listed["provenance"]
                 and (name := _result(key).partition("/")[2]) in listed[key.output]}

        def sound(key: ResultKey) -> bool:
            if self._files.remote:
                return bool(sizes[key])
            with contextlib.suppress(Damaged):
                return _difference(self.provenance(key), sizes[key]) is None
            return False

        found = dict(zip(sizes, self._in_threads(sound, sizes), strict=True))
        for key in (key for key, whole in found.items() if not whole):
            self._quarantine_if_possible(key)
        return {key.id for key, whole in found.items() if whole}

    def provenance(self, key: ResultKey) -> dict[str, Any]:
        """How a result came about. Raises `Damaged` where there is none, or it is not this one's."""
        try:
            data = self._files.read(_provenance(key))
            about = Provenance.model_validate_json(data)
        except OSError as error:
            raise Damaged(key, self._unreadable(error)) from error
        except ValidationError as error:
            raise Damaged(key, f"its provenance is damaged: {first_problem(error)}") from error
        if (about.task, about.output) != key[::-1]:
            raise Damaged(key, "its provenance is another task's")
        return dict(from_json(data))

    def noted(self, key: ResultKey, name: str) -> Any:
        """What a task noted of its result under this name. Raises `Damaged` where it did not."""
        try:
            return self.provenance(key)[name]
        except KeyError:
            raise Damaged(key, f"its provenance lacks '{name}'") from None

    def provenances(self, keys: Iterable[ResultKey], pick: Callable[[dict[str, Any]], T]) -> list[T]:
        """What `pick` takes from the provenance of each of these results that is there, unless it raises
        `ValidationError`. A result's bytes are not read."""
        def read(key: ResultKey) -> list[T]:
            with contextlib.suppress(Damaged, ValidationError):
                return [pick(self.provenance(key))]
            return []

        return [found for each in self._in_threads(read, keys) for found in each]

    def failed_cases(self, tasks: Iterable[TaskRecord]) -> Counter[Skipped]:
        """Cases that finished tasks could not edit or score, and in how many tasks."""
        return failed_in(self.provenances((task.key for task in tasks if task.output == "rows"),
                                          lambda about: about["failed"]))

    def told(self, tasks: Iterable[TaskRecord]) -> list[str]:
        """What finished tasks found that people should know, and whether they ran on more than one kind of device."""
        return told_by(self.provenances((task.key for task in tasks),
                                        lambda about: (about.get("notes", []), about.get("device"))))

    def write_table(self, key: ResultKey, table: pa.Table, provenance: Mapping[str, Any],
                    answers: pa.Table | None = None) -> None:
        """Writes a table, and how it came about; and what models said where the table has their scores. That is for
        people to look at: where it cannot be kept the scores are, and a note tells."""
        about = dict(provenance)
        if answers is not None:
            about |= self._write_answers(key, answers, about.get("notes", []))
        data = to_parquet(table)
        self._files.write(_result(key), data)
        self._write_provenance(key, about, len(data), sha256(data))

    def _write_answers(self, key: ResultKey, answers: pa.Table, notes: Sequence[str]) -> dict[str, Any]:
        """Writes what models said, and gives what the provenance tells of it: what it does not name is not there."""
        data = to_parquet(answers, text=True)
        try:
            self._files.write(_answers(key), data)
        except StoreError as error:
            return {"notes": [*notes, f"{_answers(key)}, what models said, could not be kept: {error}"]}
        return {"answers": {"bytes": len(data), "sha256": sha256(data)}}

    def read_table(self, key: ResultKey, schema: pa.Schema | None = None) -> pa.Table:
        """Reads a result. Raises `Damaged` where it is missing or damaged, or of another `schema` than it should be."""
        return self._read_table(key, self.provenance(key), schema)

    def _read_table(self, key: ResultKey, expected: Mapping[str, Any], schema: pa.Schema | None) -> pa.Table:
        """A table that is of `expected` size and checksum."""
        try:
            data = self._files.read(_result(key))
        except OSError as error:
            raise Damaged(key, self._unreadable(error)) from error
        if reason := _difference(expected, len(data), sha256(data)):
            raise Damaged(key, reason)
        try:
            table = from_parquet(data, schema)
        except (pa.ArrowException, OSError) as error:
            raise Damaged(key, f"it is no table: {error}") from error
        if schema is not None and (reason := _misfit(table.schema, schema)):
            raise Damaged(key, reason)
        return table

    def rows(self, tasks: Iterable[TaskRecord], damaged: list[Damaged] | None = None) -> pa.Table:
        """The rows of all of these tasks that are done. Damaged results are added to `damaged`, and quarantined where
        the store may be written: ask `standing` afterwards."""
        tables = self.tables([task.key for task in tasks if task.output == "rows"], ROW_SCHEMA, damaged)
        nothing = pa.Table.from_batches([], ROW_SCHEMA)  # `empty_table` would import pandas
        return pa.concat_tables([nothing, *tables.values()])

    def tables(self, keys: Iterable[ResultKey], schema: pa.Schema,
               damaged: list[Damaged] | None = None) -> dict[ResultKey, pa.Table]:
        """Those of these results that are there, tables of this schema; damaged ones as in `rows`."""
        def read(key: ResultKey) -> pa.Table | None:
            try:
                return self.read_table(key, schema)
            except Damaged as error:
                if damaged is not None and self._files.exists(_provenance(key)):  # else it is not made yet
                    damaged.append(error)
                self._quarantine_if_possible(key)
                return None

        keys = list(keys)
        found = zip(keys, self._in_threads(read, keys), strict=True)
        return {key: table for key, table in found if table is not None}

    def answers(self, tasks: Iterable[TaskRecord], damaged: list[Damaged] | None = None) -> pa.Table:
        """What models said to the questions of all of these tasks that are done and have kept it: the columns of
        `ANSWER_SCHEMA`, and `seconds`, the share of each case in what making the edits took (null where that is not
        known). Damaged answers are left out, and added to `damaged`: their rows are as good as ever."""
        def read(key: ResultKey) -> pa.Table | None:
            try:
                about = self.provenance(key)
                if not (kept := about.get("answers")):
                    return None
                table = self._read_table(ResultKey("answers", key.id), kept, ANSWER_SCHEMA)
            except Damaged as error:
                if damaged is not None and error.key.output == "answers":  # of rows `rows` tells
                    damaged.append(error)
                return None
            seconds = pa.scalar(about.get("seconds_each"), pa.float64())
            return table.append_column("seconds", pa.repeat(seconds, len(table)))

        tables = self._in_threads(read, [task.key for task in tasks if task.output == "rows"])
        nothing = pa.Table.from_batches([], ANSWER_SCHEMA.append(pa.field("seconds", pa.float64())))
        return pa.concat_tables([nothing, *(table for table in tables if table is not None)])

    @contextmanager
    def new_artefact(self, key: ResultKey, provenance: Mapping[str, Any]) -> Iterator[Path]:
        """Yields a path to write a file to; when the block ends well it appears under its name, and then how it came
        about."""
        with self._files.new(_result(key)) as path:
            yield path
            size, digest = path.stat().st_size, self._checksums.sha256(path)
        self._write_provenance(key, provenance, size, digest)

    def local(self, key: ResultKey) -> Path:
        """A path to read a result at. Raises `Damaged` where it is missing or damaged."""
        reason = self._damage(key)
        if reason and self._files.remote:
            reason = self._damage(key, anew=True)  # only the copy here may be damaged
        if reason:
            raise Damaged(key, reason)
        return self._files.fetch(_result(key))

    def forget(self, key: ResultKey) -> None:
        """Removes the copy of a remote result that this machine keeps to read it again."""
        self._files.forget(_result(key))

    def remove(self, key: ResultKey) -> None:
        """Removes a result, if it is there."""
        self._files.remove(_provenance(key))
        self._files.remove(_result(key))
        if key.output == "rows":
            self._files.remove(_answers(key))

    def quarantine(self, key: ResultKey) -> None:
        """Moves a damaged result to `damaged/`; one that is sound, because it has been made again, stays, and so does
        one that is just being written."""
        if self._files.exists(_provenance(key)) and self._damage(key, anew=True):
            aside = f"damaged/{key.output}-{key.id}-{uuid.uuid4().hex[:8]}"
            self._files.move(_provenance(key), f"{aside}.json")
            self._files.move(_result(key), aside + SUFFIXES[key.output])
            self.forget(key)

    def checkpoint(self, key: ResultKey) -> AbstractContextManager[WorkingFile]:
        """Yields a file where a task that takes long may leave how far it is, and finds what it left the last time."""
        return self._files.working(path_in("checkpoints", key.id))

    def _write_provenance(self, key: ResultKey, provenance: Mapping[str, Any], size: int, digest: str) -> None:
        of_file = {"task": key.id, "output": key.output, "sha256": digest, "bytes": size}
        about = {**of_file, "failed": [], **provenance, **of_file}
        self._files.write(_provenance(key), json.dumps(about, indent=1).encode())

    def _damage(self, key: ResultKey, *, anew: bool = False) -> str | None:
        """What is wrong with a result; None where nothing is."""
        try:
            expected = self.provenance(key)
            path = self._files.fetch(_result(key), anew)
            with self._files.reading():
                reason = _difference(expected, path.stat().st_size, self._checksums.sha256(path))
                return reason or (_misfit(pq.read_schema(path), ROW_SCHEMA) if key.output == "rows" else None)
        except Damaged as error:
            return error.reason
        except pa.ArrowException as error:
            return f"it is no table: {error}"
        except OSError as error:
            return self._unreadable(error)

    def _unreadable(self, error: OSError) -> str:
        self._files.check()
        return f"it cannot be read: {error.strerror}"

    def _in_threads(self, do: Callable[[K], T], items: Iterable[K]) -> list[T]:
        with ThreadPoolExecutor(REMOTE_THREADS if self._files.remote else THREADS) as threads:
            return list(threads.map(do, items))

    def _quarantine_if_possible(self, key: ResultKey) -> None:
        with contextlib.suppress(StoreError):  # who only reads may not be allowed to
            self.quarantine(key)


def failed_in(found: Iterable[Iterable[Mapping[str, str]]]) -> Counter[Skipped]:
    """Cases that tasks could not edit or score, by what each has `failed`, and in how many tasks."""
    return Counter(Skipped.model_validate(case) for cases in found for case in cases)


def told_by(found: Sequence[tuple[Iterable[str], str | None]]) -> list[str]:
    """What tasks noted, each once, and whether they ran on more than one kind of device."""
    notes = list(dict.fromkeys(note for told, _ in found for note in told))
    devices = Counter(device for _, device in found if device)
    if len(devices) > 1:
        notes.append("results are from several kinds of device, which round otherwise: "
                     + ", ".join(f"{device} ({count} tasks)" for device, count in devices.most_common()))
    return notes


def path_in(folder: str, name: str) -> str:
    return f"{folder}/{name}{SUFFIXES[folder]}"


def _result(key: ResultKey) -> str:
    return path_in(key.output, key.id)


def _answers(key: ResultKey) -> str:
    return path_in("answers", key.id)


def _provenance(key: ResultKey) -> str:
    return path_in("provenance", key.id)


def _difference(expected: Mapping[str, Any], size: int, digest: str | None = None) -> str | None:
    """What tells a file from that which its provenance describes; None where nothing does."""
    if size != expected["bytes"]:
        return f"it has {size} bytes and should have {expected['bytes']}"
    if digest not in (None, expected["sha256"]):
        return "its content is not what was written, or is another task's"
    return None


def _misfit(columns: pa.Schema, schema: pa.Schema) -> str | None:
    """Why a table of these columns cannot be read; None where it can."""
    return None if columns.equals(schema) else (
        f"its columns are {', '.join(columns.names)}, which this version does not read")
