"""Damage of every kind: a result is read as it was written, or it is `Damaged`."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file
from support.stores import PATCH, ROWS, campaign, read_patch, rows, task, write_patch

from cluster.store.errors import Damaged, StoreError
from cluster.store.store import ResultKey, Store

READ = {ROWS: lambda store: store.read_table(ROWS).to_pylist(), PATCH: lambda store: read_patch(store.local(PATCH))}


@pytest.fixture
def store(tmp_path):
    """A store with a table and an artefact."""
    store = Store.create(tmp_path / "store")
    write_both(store)
    return store


def write_both(store):
    store.write_table(ROWS, rows(*(k / 7 for k in range(20))), {"failed": []})
    write_patch(store)


def path_of_provenance(store, key):
    return Path(store.root, "provenance", f"{key.id}.json")


def path_of(store, key):
    return Path(store.root, key.output, key.id + (".safetensors" if key.output == "artefacts" else ".parquet"))


@pytest.mark.parametrize("key", [ROWS, PATCH])
def test_a_flipped_bit_is_found_wherever_it_is(store, key):
    path = path_of(store, key)
    good = path.read_bytes()
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << random.Random(place).randrange(8)
        path.write_bytes(bad)
        with pytest.raises(Damaged) as caught:
            READ[key](store)
        assert caught.value.key == key
    path.write_bytes(good)
    assert READ[key](store)


HARMS = {"emptied": lambda data: b"", "cut by a byte": lambda data: data[:-1],
         "cut in half": lambda data: data[: len(data) // 2], "cut to a few bytes": lambda data: data[:5],
         "zeroed": lambda data: b"\0" * len(data), "longer by a byte": lambda data: data + b"\0",
         "a huge header": lambda data: b"\xff" * 8 + data[8:]}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
@pytest.mark.parametrize("key", [ROWS, PATCH])
def test_a_damaged_result_is_set_aside_and_made_again(store, key, harm):
    """One of its length only once its bytes are used."""
    good, before = path_of(store, key).read_bytes(), READ[key](store)
    about = path_of_provenance(store, key).read_bytes()
    bad = harm(good)
    path_of(store, key).write_bytes(bad)
    seems_sound = len(bad) == len(good)
    assert store.has(key) == seems_sound
    assert store.done([ROWS, PATCH]) == {ROWS.id, PATCH.id} - (set() if seems_sound else {key.id})
    if seems_sound:
        with pytest.raises(Damaged, match="not what was written"):
            READ[key](store)
        store.quarantine(key)
    kept = {path.suffix: path.read_bytes() for path in Path(store.root, "damaged").glob(f"{key.output}-{key.id}-*")}
    assert kept == {path_of(store, key).suffix: bad, ".json": about}
    with pytest.raises(Damaged, match="there is no such file"):
        READ[key](store)
    write_both(store)
    assert store.done([key]) == {key.id} and READ[key](store) == before


@pytest.mark.parametrize("harm", [lambda data: b"", lambda data: data[:-2], lambda data: b"[1]", lambda data: b"{}",
                                  lambda data: data.replace(b'"bytes": ', b'"bytes": 1'),
                                  lambda data: data.replace(b'"sha256": "', b'"sha256": "0')],
                         ids=["emptied", "cut", "a list", "an empty object", "another length", "another checksum"])
@pytest.mark.parametrize("key", [ROWS, PATCH])
def test_a_damaged_provenance_is_damage_too(store, key, harm):
    path = path_of_provenance(store, key)
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(Damaged):
        READ[key](store)
    store.quarantine(key)
    assert store.done([ROWS, PATCH]) == {ROWS.id, PATCH.id} - {key.id}
    assert len(list(Path(store.root, "damaged").iterdir())) == 2
    write_both(store)
    assert store.done([ROWS, PATCH]) == {ROWS.id, PATCH.id} and READ[key](store)


def test_the_result_of_another_task_is_not_taken_for_this_ones(store):
    others = {ROWS: ResultKey("rows", "a2"), PATCH: ResultKey("artefacts", "c1")}
    store.write_table(others[ROWS], rows(0.5), {})
    write_patch(store, others[PATCH], fill=0.1)
    for key, other in others.items():
        path_of(store, other).rename(path_of(store, key))
        with pytest.raises(Damaged, match=r"another task's|should have"):
            READ[key](store)
        path_of_provenance(store, other).rename(path_of_provenance(store, key))
        with pytest.raises(Damaged, match="its provenance is another task's"):
            READ[key](store)
        assert not store.has(key)


def test_a_large_artefact_is_read_for_its_checksum_once_by_a_process(store, monkeypatch):
    monkeypatch.setattr("cluster.store.checksums.LARGE", 0)
    path, read = path_of(store, PATCH), []

    def digest(file, name):
        read.append(file.name)
        return hashlib.file_digest(file, name)

    monkeypatch.setattr("cluster.store.checksums.hashlib", SimpleNamespace(file_digest=digest, sha256=hashlib.sha256))
    assert store.done([PATCH]) == {PATCH.id} and not read
    assert store.local(PATCH) == store.local(PATCH) == path and len(read) == 1
    os.utime(path, ns=(1, 1))  # another version
    assert store.local(PATCH) and len(read) == 2
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    assert store.done([PATCH]) == {PATCH.id}
    with pytest.raises(Damaged, match="not what was written"):
        store.local(PATCH)
    store.quarantine(PATCH)
    assert store.done([PATCH]) == set()


def test_files_from_elsewhere_count_as_damaged(store):
    pq.write_table(rows(0.1), path_of(store, ROWS))
    save_file(load_file(store.local(PATCH)), path_of(store, PATCH))
    for key, read in READ.items():
        with pytest.raises(Damaged, match="should have"):
            read(store)
        assert not store.has(key)


def test_a_report_counts_what_is_damaged_as_missing(store):
    store.write_table(ResultKey("rows", "a2"), rows(0.5), {"failed": []})
    path_of(store, ROWS).write_bytes(b"PAR1")
    record = campaign("study", task("a1"), task("a2"), task("a3"))
    assert store.failed_cases(record.tasks) == {}
    assert store.rows(record.tasks)["value"].to_pylist() == [0.5]
    assert store.standing(record).done == {"a2"}
    assert len(list(Path(store.root, "damaged").iterdir())) == 2


def test_a_report_on_a_store_that_cannot_be_written_counts_it_as_missing_too(store, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path_of(store, ROWS).write_bytes(b"PAR1")
    monkeypatch.setattr("pathlib.Path.replace", refuse)
    record = campaign("study", task("a1"))
    assert store.rows(record.tasks).num_rows == 0 and store.standing(record).done == frozenset()
    with pytest.raises(StoreError, match="Permission denied"):
        store.quarantine(ROWS)


def test_what_was_made_again_is_not_set_aside(store):
    for key, read in READ.items():
        before = read(store)
        store.quarantine(key)  # as if its damage had been found before another worker made it again
        assert read(store) == before
    store.quarantine(ResultKey("rows", "never made"))
    assert list(Path(store.root, "damaged").iterdir()) == []


def test_a_file_that_the_disk_cannot_read_is_damaged(store, monkeypatch):
    def fail(self, path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("fsspec.implementations.local.LocalFileSystem.cat_file", fail)
        with pytest.raises(Damaged, match="Input/output error"):
            store.read_table(ROWS)
    assert store.read_table(ROWS)


def test_damage_travels_between_processes():
    error = pickle.loads(pickle.dumps(Damaged(ROWS, "it is empty")))
    assert (error.key, error.reason, str(error)) == (ROWS, "it is empty", "rows/a1 cannot be used: it is empty")
    assert json.dumps(error.key)
