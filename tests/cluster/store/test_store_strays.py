"""What does not belong into a store is ignored and named, and its own small files may say anything."""

from __future__ import annotations

import contextlib
import json
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.stores import PATCH, ROWS, campaign, rows, task, write_patch
from typer.testing import CliRunner

from cluster.plan.forecast import forecast
from cluster.store.checksums import sha256
from cluster.store.errors import Damaged, StoreError
from cluster.store.store import ROW_SCHEMA, Failure, Store
from editors.core.errors import InputError
from jobs.cli import app

RECORD = campaign("study", task("a1"), task("a2"))
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner:
                    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6)
NONE = ["", "[]", "3", "null", '"text"', "[" * 100_000, '{"task": ' * 100_000, "{", "\0", '{"pid": ' + "9" * 5000 + "}"]
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def store(tmp_path):
    return new_store(tmp_path / "store")


def new_store(path):
    """A store with a campaign of two tasks, one of which is done and one failed."""
    store = Store.create(path)
    store.write_campaign(RECORD)
    store.write_table(ROWS, rows(0.1, 0.2), {"failed": [], "device": "cpu"})
    store.write_failure(Failure(task="a2", title="t", reason="ValueError: bad"))
    write_patch(store)
    return store


def invoke(*arguments):
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "300"})


def use(store):
    """All that reads small files, which may refuse; nothing else may happen."""
    for look in (lambda: store.read_table(ROWS, ROW_SCHEMA), lambda: store.local(PATCH), store.driver, store.campaigns,
                 store.strays, lambda: store.standing(RECORD), lambda: store.told(RECORD.tasks), lambda: store.rows(
                 RECORD.tasks), lambda: store.failed_cases(RECORD.tasks), lambda: forecast({}, store=store)):
        with contextlib.suppress(InputError, StoreError, Damaged):
            look()
    for command in (["status", store.root], ["report", store.root, "--format", "json"]):
        result = invoke(*command)
        assert result.exit_code in (0, 1, 2) and isinstance(result.exception, SystemExit | None), result.exc_info


def test_foreign_files_and_folders_are_ignored_and_named(store):
    root = Path(store.root)
    (root / "rows" / "foo").mkdir()
    (root / "rows" / "foo" / "inner.parquet").write_text("x")
    pq.write_table(pa.table({"odd": [1]}), root / "rows" / "stray.parquet")
    (root / "campaigns" / "notes.txt").write_text("mine")
    (root / "campaigns" / "x.json").mkdir()
    (root / "failures" / "a9.json").mkdir()
    (root / "thesis").mkdir()
    for hidden in (root / ".DS_Store", root / "rows" / ".DS_Store", root / "campaigns" / ".DS_Store"):
        hidden.write_bytes(b"\0\0\0\1Bud1")
    (root / "lost+found").mkdir(mode=0)
    named = {f"{root}/{name}" for name in ("rows/foo", "campaigns/notes.txt", "campaigns/x.json", "failures/a9.json",
                                           "thesis")}
    assert {line.split(" is none")[0] for line in store.strays()} == named
    again = Store.create(root)
    assert again.campaigns() == [RECORD] and again.standing(RECORD).done == {"a1"}
    assert again.rows(RECORD.tasks)["value"].to_pylist() == [0.1, 0.2]
    status, report = invoke("status", store.root), invoke("report", store.root)
    assert status.exit_code == report.exit_code == 0 and "1 of 2 tasks done" in status.stdout
    assert all(name in status.stdout and name in report.stderr for name in named)


def test_a_new_store_may_have_a_disk_of_its_own(tmp_path):
    (tmp_path / "lost+found").mkdir()
    assert Store.create(tmp_path).strays() == []


def test_a_copy_of_a_campaign_counts_once(store):
    folder = Path(store.root, "campaigns")
    (folder / "d1 (copy).json").write_bytes((folder / "d1.json").read_bytes())
    assert store.campaigns() == [RECORD] and "it is a copy of another" in store.strays()[0]


@pytest.mark.parametrize("name", ["rows/a1.parquet", "provenance/a1.json", "artefacts/c0.safetensors",
                                  "provenance/c0.json", "campaigns/d1.json", "failures/a2.json", "driver.json"])
def test_a_folder_in_the_place_of_a_file_is_damage(store, name):
    path = Path(store.root, name)
    path.unlink(missing_ok=True)
    path.mkdir()
    use(store)
    if name.startswith("rows"):
        assert not path.exists() and list(Path(store.root, "damaged").glob("rows-a1-*.parquet"))  # set aside
        store.write_table(ROWS, rows(0.1), {})
        path.unlink()
        path.mkdir()
        assert f"{path} is none of the store's" in store.strays()[0]
        with pytest.raises(StoreError, match=r"a folder is in the way.*remove it"):
            store.write_table(ROWS, rows(0.1), {})
    if name == "driver.json":
        with pytest.raises(StoreError, match="a folder is in the way"), store.lease("study"):
            pass


@pytest.mark.parametrize("name", ["provenance/a1.json", "provenance/c0.json", "campaigns/d1.json", "failures/a2.json",
                                  "driver.json", "store.json"])
@pytest.mark.parametrize("text", NONE, ids=range(len(NONE)))
def test_a_small_file_that_is_none_ends_nothing(store, name, text):
    Path(store.root, name).write_text(text)
    if name.startswith("provenance"):
        with pytest.raises(Damaged, match="its provenance is damaged"):
            store.provenance(ROWS if "a1" in name else PATCH)
    use(store)
    if name == "failures/a2.json":
        [failure] = store.standing(RECORD).failures
        assert failure.task == "a2" and failure.reason == "what it said cannot be read"
    if name == "store.json":
        with pytest.raises(InputError):
            Store.open(store.root)


@FUZZ
@given(name=st.sampled_from(["provenance/a1.json", "provenance/c0.json", "campaigns/d1.json", "driver.json"]),
       data=st.data())
def test_any_field_of_a_small_file_may_be_anything(tmp_path, name, data):
    store = new_store(tmp_path / uuid.uuid4().hex)
    path = Path(store.root, name)
    place = fields = json.loads(path.read_text()) if path.exists() else {
        "token": "t", "campaign": "study", "host": "h", "pid": 1, "machine": "m", "started": "s",
        "state": {"workers": 1, "starting": 1, "at": {"7": "title"}}}
    field = data.draw(st.sampled_from([*place, "kind", "model", "notes"]))
    while isinstance(place.get(field), dict) and data.draw(st.booleans()):
        place = place[field]
        field = data.draw(st.sampled_from([*place, "more"]))
    place[field] = data.draw(JSON)
    path.write_text(json.dumps(fields))
    use(store)


def test_forecasts_pass_over_what_tells_nothing(store):
    assert forecast({}, store=store).seconds == {}  # its provenance tells no model


def test_a_table_of_other_columns_is_damage(store):
    path, about = Path(store.root, "rows", "a1.parquet"), Path(store.root, "provenance", "a1.json")
    said = json.loads(about.read_text())
    for write in (lambda: pq.write_table(pa.table({"odd": [1]}), path), lambda: path.write_text("no table")):
        write()
        data = path.read_bytes()
        about.write_text(json.dumps({**said, "bytes": len(data), "sha256": sha256(data)}))
        with pytest.raises(Damaged, match=r"its columns are odd|it is no table"):
            store.read_table(ROWS, ROW_SCHEMA)
        damaged = []
        assert store.rows(RECORD.tasks, damaged).num_rows == 0
        assert [each.key for each in damaged] == [ROWS] and ROWS.id not in store.standing(RECORD).done  # set aside


def test_a_campaign_whose_tasks_need_others_is_none(store):
    path = Path(store.root, "campaigns", "d1.json")
    fields = json.loads(path.read_text())
    fields["tasks"][0]["needs"] = ["gone"]
    path.write_text(json.dumps(fields))
    assert store.campaigns() == [] and "it lacks task 'gone'" in store.strays()[0]


@pytest.mark.parametrize("note", ["seconds_edit", "tokens"])
def test_what_a_task_should_have_noted_and_did_not_is_damage(store, note):
    with pytest.raises(Damaged, match=f"its provenance lacks '{note}'"):
        store.noted(ROWS, note)
    assert store.noted(ROWS, "device") == "cpu"
