"""The store: whole files or none, and trouble told apart from absence."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from cluster.store import ROW_SCHEMA, CampaignRecord, DatasetRecord, Failure, Key, Store, TaskRecord
from editors.core.errors import InputError
from evaluators.cases import Skipped

ROWS = Key("rows", "a1")


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def rows(*values):
    row = {"editor": "ft", "model": "m", "dataset": "d", "protocol": "single", "edits": 1,
           "metric": "reliability.token", "case_id": "c", "subject": "s", "task": "a1", "seed": 0, "order": 0,
           "texts": None}
    return pa.Table.from_pylist([{**row, "value": value} for value in values], schema=ROW_SCHEMA)


def task(name, output="rows"):
    return TaskRecord(id=name, kind="score", output=output, title=f"title of {name}", edits=2)


def campaign(name, *tasks, digest="d1", started=datetime(2030, 1, 1, tzinfo=UTC)):
    return CampaignRecord(name=name, digest=digest, started=started, tasks=tasks,
                          datasets=(DatasetRecord(name="d", cases=2, skipped=()),))


def files(store):
    return sorted(path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file())


def test_a_table_comes_back_with_how_it_came_about(store):
    assert not store.has(ROWS)
    store.write_table(ROWS, rows(0.1, 0.2), {"device": "cpu", "failed": []})
    assert store.has(ROWS)
    assert store.read_table(ROWS)["value"].to_pylist() == [0.1, 0.2]
    assert store.provenance(ROWS) == {"device": "cpu", "failed": []}


def test_writing_twice_leaves_one_file(store):
    store.write_table(ROWS, rows(0.1), {})
    before = files(store)
    store.write_table(ROWS, rows(0.1), {})
    assert files(store) == before


def test_an_interrupted_write_leaves_nothing(store):
    before = files(store)
    with pytest.raises(KeyboardInterrupt), store.new_artefact(Key("artefacts", "x")) as path:
        path.write_bytes(b"half")
        raise KeyboardInterrupt
    assert files(store) == before


def test_an_unfinished_write_hides_neither_absence_nor_the_old_file(store):
    store.write_table(ROWS, rows(0.1), {})
    with store.new_artefact(ROWS) as path:
        path.write_bytes(b"half")
        assert store.read_table(ROWS)["value"].to_pylist() == [0.1]


def test_many_writers_do_not_disturb_each_other(tmp_path):
    def write(_):
        Store.create(tmp_path / "store").write_table(ROWS, rows(0.5), {"failed": []})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(100)))
    assert files(Store.open(tmp_path / "store")) == ["rows/a1.parquet", "store.json"]


@pytest.mark.parametrize("harm", [lambda data: b"", lambda data: data[:-1], lambda data: data[: len(data) // 2],
                                  lambda data: b"\0" * len(data),
                                  lambda data: data[:20] + bytes([data[20] ^ 255]) + data[21:]],
                         ids=["emptied", "cut by a byte", "cut in half", "zeroed", "one byte flipped"])
def test_a_damaged_table_counts_as_not_done(store, harm):
    store.write_table(ROWS, rows(*(k / 7 for k in range(100))), {"failed": []})
    path = store.path(ROWS)
    path.write_bytes(harm(path.read_bytes()))
    assert not store.has(ROWS)
    assert store.done([ROWS]) == set()
    assert store.rows([task("a1")]).num_rows == 0
    store.write_table(ROWS, rows(0.1), {"failed": []})
    assert store.has(ROWS)


def test_a_table_from_elsewhere_counts_as_not_done(store):
    pq.write_table(rows(0.1), store.path(ROWS))
    assert not store.has(ROWS)


def test_a_damaged_artefact_counts_as_not_done(store):
    key = Key("artefacts", "c0")
    with store.new_artefact(key) as path:
        save_file({"x": torch.ones(1000)}, path)
    assert store.has(key)
    store.path(key).write_bytes(store.path(key).read_bytes()[:-1])
    assert not store.has(key)


def test_rows_of_several_tasks_and_of_none(store):
    store.write_table(ROWS, rows(0.1), {"failed": []})
    store.write_table(Key("rows", "a2"), rows(0.2, 0.3), {"failed": []})
    tasks = [task("a1"), task("a2"), task("a3"), task("b", "baselines")]
    assert store.rows(tasks)["value"].to_pylist() == [0.1, 0.2, 0.3]
    assert store.rows([]).schema.equals(ROW_SCHEMA)


def test_failed_cases_are_counted_over_tasks(store):
    long, odd = Skipped(case_id="c1", reason="too long"), Skipped(case_id="c2", reason="odd")
    store.write_table(ROWS, rows(0.1), {"failed": [long.model_dump()]})
    store.write_table(Key("rows", "a2"), rows(0.1), {"failed": [long.model_dump(), odd.model_dump()]})
    assert store.failed_cases([task("a1"), task("a2")]) == {long: 2, odd: 1}


def test_standing_tells_done_failed_and_missing_apart(store):
    store.write_table(ROWS, rows(0.1), {"failed": []})
    for name in ("a1", "a2"):
        store.write_failure(Failure(task=name, title="t", reason="Traceback:\n  x\nValueError: bad\n"))
    standing = store.standing(campaign("study", task("a1"), task("a2"), task("a3")))
    assert standing.done == {"a1"}
    assert [(failure.task, failure.summary) for failure in standing.failures] == [("a2", "ValueError: bad")]
    store.clear_failure("a2")
    store.clear_failure("a2")
    assert store.standing(campaign("study", task("a2"))).failures == ()


def test_campaigns_come_last_run_first(store):
    day = timedelta(days=1)
    first = campaign("first", task("a1"), digest="1")
    second = campaign("second", digest="2", started=first.started + day)
    store.write_campaign(first)
    store.write_campaign(second)
    assert store.campaigns() == [second, first]
    again = first.model_copy(update={"started": first.started + 2 * day})
    store.write_campaign(again)
    assert store.campaigns() == [again, second]


def test_a_damaged_campaign_is_named(store):
    (store.root / "campaigns" / "x.json").write_text('{"name": ')
    with pytest.raises(InputError, match=r"x\.json"):
        store.campaigns()


# --- opening


def test_opening_again_keeps_everything(store):
    store.write_table(ROWS, rows(0.1), {})
    assert Store.create(store.root).has(ROWS)
    assert Store.open(store.root).has(ROWS)


def test_a_store_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="there is no store"):
        Store.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not a store"):
        Store.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("path", ["file/store", "file"])
def test_a_place_that_cannot_be_written(tmp_path, path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write to store"):
        Store.create(tmp_path / path)


def test_a_folder_that_cannot_be_written(store, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)  # permission bits do not stop root
    with pytest.raises(InputError, match=r"cannot write to store .*: Permission denied"):
        Store.create(store.root)
    assert Store.open(store.root)


@pytest.mark.parametrize(("content", "message"), [
    (json.dumps({"format": 1}), "format 1"), (json.dumps([1]), "format None"), ("{", "cannot read")])
def test_another_format_is_refused_and_left_alone(store, content, message):
    (store.root / "store.json").write_text(content)
    for use in (Store.open, Store.create):
        with pytest.raises(InputError, match=message):
            use(store.root)
    assert (store.root / "store.json").read_text() == content
