"""Damage of every kind: a result is read as it was written, or it is `Damaged`."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file
from support.stores import PATCH, ROWS, campaign, read_patch, rows, task, write_patch

from cluster.store.store import Damaged, ResultKey, Store
from editors.core.errors import StoreError

BASELINE = ResultKey("baselines", "b0")
READ = {ROWS: lambda store: store.read_table(ROWS).to_pylist(), PATCH: lambda store: read_patch(store.local(PATCH))}


@pytest.fixture
def store(tmp_path):
    """A store with a table and an artefact."""
    store = Store.create(tmp_path / "store")
    store.write_table(ROWS, rows(*(k / 7 for k in range(20))), {"failed": []})
    write_patch(store)
    return store


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
@pytest.mark.parametrize("large", [0, 1 << 30])
def test_a_damaged_result_is_set_aside_and_made_again(store, key, harm, large, monkeypatch):
    monkeypatch.setattr("cluster.store.store.LARGE", large)  # 0: only looked at whether it is whole
    good, before = path_of(store, key).read_bytes(), READ[key](store)
    bad = harm(good)
    path_of(store, key).write_bytes(bad)
    assert not store.has(key)
    assert store.done([ROWS, PATCH]) == {ROWS.id, PATCH.id} - {key.id}
    [aside] = Path(store.root, "damaged").iterdir()
    assert aside.name.startswith(f"{key.output}-{key.id}-") and aside.read_bytes() == bad
    with pytest.raises(Damaged, match="there is no such file"):
        READ[key](store)
    path_of(store, key).write_bytes(good)
    assert store.done([key]) == {key.id} and READ[key](store) == before


def test_the_result_of_another_task_is_not_taken_for_this_ones(store):
    store.write_table(ResultKey("rows", "a2"), rows(0.5), {"failed": []})
    path_of(store, ResultKey("rows", "a2")).rename(path_of(store, ROWS))
    write_patch(store, ResultKey("artefacts", "c1"), fill=0.1)
    path_of(store, ResultKey("artefacts", "c1")).rename(path_of(store, PATCH))
    for read in READ.values():
        with pytest.raises(Damaged, match="another task's"):
            read(store)


def test_a_large_artefact_is_read_whole_only_by_who_needs_it(store, monkeypatch):
    monkeypatch.setattr("cluster.store.store.LARGE", 0)
    path = path_of(store, PATCH)
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
        with pytest.raises(Damaged, match="no seal"):
            read(store)
        assert not store.has(key)


def test_only_safetensors_files_can_be_artefacts(store):
    with pytest.raises(ValueError, match=r"no safetensors file|Expecting value"), store.new_artefact(PATCH) as path:
        path.write_bytes(b"\x03\0\0\0\0\0\0\0[1]")
    assert read_patch(store.local(PATCH))  # the old one is still there


def test_content_that_looks_like_a_seal_is_no_trouble(store):
    seal = "editfleet sha256 " + "0" * 64
    table = rows(0.1, 0.2)
    table = table.set_column(7, "case_id", [[seal, seal]]).replace_schema_metadata({"zzz": seal})
    store.write_table(ROWS, table, {"failed": [], "editfleet-seal": seal})
    assert store.read_table(ROWS)["case_id"].to_pylist() == [seal, seal]
    assert store.provenance(ROWS)["editfleet-seal"] == seal
    with store.new_artefact(PATCH) as path:
        save_file(load_file(store.local(PATCH)), path, {"a": seal, "z": seal})
    assert len(load_file(store.local(PATCH))) == 1
    for key in (ROWS, PATCH):
        data = bytearray(path_of(store, key).read_bytes())
        data[data.index(seal.encode()) + 20] ^= 1
        path_of(store, key).write_bytes(data)
        assert not store.has(key)


def test_a_report_counts_what_is_damaged_as_missing(store):
    store.write_table(ResultKey("rows", "a2"), rows(0.5), {"failed": []})
    path_of(store, ROWS).write_bytes(b"PAR1")
    record = campaign("study", task("a1"), task("a2"), task("a3"))
    assert store.failed_cases(record.tasks) == {}
    assert store.rows(record.tasks)["value"].to_pylist() == [0.5]
    assert store.standing(record).done == {"a2"}
    assert len(list(Path(store.root, "damaged").iterdir())) == 1


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
    def fail(self):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("pathlib.Path.read_bytes", fail)
        with pytest.raises(Damaged, match="Input/output error"):
            store.read_table(ROWS)
    assert store.read_table(ROWS)


def test_damage_travels_between_processes():
    error = pickle.loads(pickle.dumps(Damaged(ROWS, "it is empty")))
    assert (error.key, error.reason, str(error)) == (ROWS, "it is empty", "rows/a1 cannot be used: it is empty")
    assert json.dumps(error.key)
