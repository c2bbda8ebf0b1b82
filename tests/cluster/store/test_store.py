"""The store: whole files or none, and trouble told apart from absence."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow.dataset
import pytest
from safetensors.torch import load_file
from support.stores import PATCH, ROWS, campaign, files, read_patch, rows, task, write_patch

from cluster.store.store import ROW_SCHEMA, Failure, ResultKey, Store
from editors.core.errors import InputError
from evaluators.cases import Skipped


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def test_a_table_comes_back_with_how_it_came_about(store):
    assert not store.has(ROWS)
    store.write_table(ROWS, rows(0.1, 0.2), {"device": "cpu"})
    assert store.has(ROWS)
    assert store.read_table(ROWS)["value"].to_pylist() == [0.1, 0.2]
    about, content = store.provenance(ROWS), Path(store.root, "rows", "a1.parquet").read_bytes()
    assert about == {"task": "a1", "output": "rows", "sha256": hashlib.sha256(content).hexdigest(),
                     "bytes": len(content), "failed": [], "device": "cpu"}


def test_other_programs_read_what_is_stored(store):
    store.write_table(ROWS, rows(0.1, 0.2), {})
    store.write_table(ResultKey("rows", "a2"), rows(0.3), {})
    found = pyarrow.dataset.dataset(Path(store.root, "rows")).to_table()
    assert sorted(found["value"].to_pylist()) == [0.1, 0.2, 0.3]
    write_patch(store)
    assert [tensor.shape for tensor in load_file(Path(store.root, "artefacts", "c0.safetensors")).values()] == [(64, 3)]


def test_an_artefact_comes_back_as_it_was_written_and_how_it_came_about(store):
    write_patch(store)
    info, terms = read_patch(store.local(PATCH))
    assert info == {"made": "here"} and terms[0][1]["weight"] == [[0.5] * 3] * 64
    first = store.local(PATCH).read_bytes()
    with store.new_artefact(PATCH, {"device": "gpu"}) as path:
        path.write_bytes(first)
    assert store.local(PATCH).read_bytes() == first
    assert store.provenance(PATCH)["device"] == "gpu" and store.provenance(PATCH)["bytes"] == len(first)


def test_writing_twice_leaves_one_file(store):
    store.write_table(ROWS, rows(0.1), {})
    write_patch(store)
    before = files(store)
    store.write_table(ROWS, rows(0.1), {})
    write_patch(store)
    assert files(store) == before == ["artefacts/c0.safetensors", "provenance/a1.json", "provenance/c0.json",
                                      "rows/a1.parquet", "store.json"]


def test_a_result_without_its_provenance_is_not_there_yet(store):
    store.write_table(ROWS, rows(0.1), {})
    write_patch(store)
    for key in (ROWS, PATCH):
        Path(store.root, "provenance", f"{key.id}.json").unlink()
        assert not store.has(key)
        store.quarantine(key)  # somebody may be writing it
    assert store.done([ROWS, PATCH]) == set() and store.rows([task("a1")]).num_rows == 0
    assert files(store) == ["artefacts/c0.safetensors", "rows/a1.parquet", "store.json"]
    store.write_table(ROWS, rows(0.1), {})
    store.remove(ROWS)
    assert files(store) == ["artefacts/c0.safetensors", "store.json"]


@pytest.mark.parametrize("same", [True, False])
def test_two_writers_of_one_task_leave_a_result_that_is_sound_or_made_again(store, monkeypatch, same):
    """The second writes both of its files after the first has written one."""
    write, other = store._files.write, Store.open(store.root)

    def interrupted(name, data):
        if name.startswith("provenance"):
            other.write_table(ROWS, rows(0.1 if same else 0.2), {"seconds": 2})
        write(name, data)

    with monkeypatch.context() as patched:
        patched.setattr(store._files, "write", interrupted)
        store.write_table(ROWS, rows(0.1), {"seconds": 1})
    assert store.provenance(ROWS)["seconds"] == 1
    assert store.rows([task("a1")])["value"].to_pylist() == ([0.1] if same else [])
    assert store.done([ROWS]) == ({"a1"} if same else set())
    store.write_table(ROWS, rows(0.1), {"seconds": 3})
    assert store.rows([task("a1")])["value"].to_pylist() == [0.1]


def test_an_interrupted_write_leaves_nothing(store):
    before = files(store)
    with pytest.raises(KeyboardInterrupt), store.new_artefact(PATCH, {}) as path:
        path.write_bytes(b"half")
        raise KeyboardInterrupt
    assert files(store) == before


def test_an_unfinished_write_hides_neither_absence_nor_the_old_file(store):
    with store.new_artefact(PATCH, {}) as path:
        path.write_bytes(b"half")
        assert not store.has(PATCH)
        assert store.done([PATCH]) == set()
        write_patch(store)
        before = read_patch(store.local(PATCH))
        path.write_bytes(store.local(PATCH).read_bytes())
    assert read_patch(store.local(PATCH)) == before


def test_many_writers_do_not_disturb_each_other(tmp_path):
    def write(_):
        Store.create(tmp_path / "store").write_table(ROWS, rows(0.5), {"failed": []})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(100)))
    assert files(Store.open(tmp_path / "store")) == ["provenance/a1.json", "rows/a1.parquet", "store.json"]
    assert Store.open(tmp_path / "store").done([ROWS]) == {"a1"}


def test_ten_thousand_tasks_are_listed_in_seconds(store):
    store.write_table(ROWS, rows(*(k / 7 for k in range(2500))), {"failed": [], "about": "x" * 4000})
    content, about = store.local(ROWS).read_bytes(), Path(store.root, "provenance", "a1.json").read_text()
    keys = [ResultKey("rows", f"{number:024x}") for number in range(10_000)]
    for number, key in enumerate(keys):  # of every fifth a byte is missing: to set it aside takes longer
        Path(store.root, "rows", f"{key.id}.parquet").write_bytes(content if number % 5 else content[:-1])
        Path(store.root, "provenance", f"{key.id}.json").write_text(about.replace('"a1"', f'"{key.id}"'))
    started = time.monotonic()
    assert len(store.done(keys)) == 8000
    assert time.monotonic() - started < 15  # about 0.6 seconds for good ones on 2 cores
    assert len(list(Path(store.root, "damaged").iterdir())) == 4000


def test_rows_of_several_tasks_and_of_none(store):
    store.write_table(ROWS, rows(0.1), {"failed": []})
    store.write_table(ResultKey("rows", "a2"), rows(0.2, 0.3), {"failed": []})
    tasks = [task("a1"), task("a2"), task("a3"), task("b", "baselines")]
    assert store.rows(tasks)["value"].to_pylist() == [0.1, 0.2, 0.3]
    assert store.rows([]).schema.equals(ROW_SCHEMA)


def test_how_far_a_campaign_is_and_which_cases_failed_is_told_without_reading_rows(store, monkeypatch):
    store.write_table(ROWS, rows(0.1), {"failed": [{"case_id": "c1", "reason": "odd"}]})
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.cat_file", watch := reading(store))
    monkeypatch.setattr("cluster.store.checksums.FileChecksums.sha256", lambda self, path: 1 / 0)
    assert store.standing(campaign("study", task("a1"), task("a2"))).done == {"a1"}
    assert store.failed_cases([task("a1"), task("a2")]).total() == 1
    assert set(watch.names) == {"provenance/a1.json", "provenance/a2.json"}


def reading(store):
    """Reads like the driver, and remembers what."""
    def read(fs, path):
        read.names.append(Path(path).relative_to(store.root).as_posix())
        return Path(path).read_bytes()

    read.names = []
    return read


def test_failed_cases_are_counted_over_tasks(store):
    long, odd = Skipped(case_id="c1", reason="too long"), Skipped(case_id="c2", reason="odd")
    store.write_table(ROWS, rows(0.1), {"failed": [long.model_dump()]})
    store.write_table(ResultKey("rows", "a2"), rows(0.1), {"failed": [long.model_dump(), odd.model_dump()]})
    assert store.failed_cases([task("a1"), task("a2"), task("a3")]) == {long: 2, odd: 1}


def test_standing_tells_done_failed_and_missing_apart(store):
    store.write_table(ROWS, rows(0.1), {"failed": []})
    for name in ("a1", "a2"):
        store.write_failure(Failure(task=name, title="t", reason="Traceback:\n  x\nValueError: bad\n"))
    standing = store.standing(campaign("study", task("a1"), task("a2"), task("a3")))
    assert standing.done == {"a1"}
    assert [(failure.task, failure.summary) for failure in standing.failures] == [("a2", "ValueError: bad")]
    assert Path(store.failure_path("a2")).exists()
    store.clear_failures(["a2", "a3"])
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


def test_a_damaged_campaign_is_named_and_the_others_stay(store):
    store.write_campaign(record := campaign("study", task("a1")))
    Path(store.root, "campaigns", "x.json").write_text('{"name": ')
    assert store.campaigns() == [record]
    [line] = store.strays()
    assert f"{store.root}/campaigns/x.json cannot be read" in line and "running its campaign again" in line


def test_a_checkpoint_stays_until_it_is_removed(store):
    key = ResultKey("artefacts", "t")
    with pytest.raises(RuntimeError), store.checkpoint(key) as (path, _):
        assert not path.exists()
        path.write_bytes(b"half way")
        raise RuntimeError
    with store.checkpoint(key) as (path, _):
        assert path.read_bytes() == b"half way"
        path.unlink()
    assert files(store) == ["store.json"]


HEAVY = """
import sys
from jobs.cli import app

app([*sys.argv[1:]], standalone_mode=False)
print(sorted({"torch", "ray", "transformers", "datasets", "pandas"} & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize(("command", "told"), [(["status"], "1 of 1 tasks done"),
                                               (["report", "--format", "json"], '"mean": 0.15')])
def test_to_look_at_a_store_loads_nothing_heavy(store, command, told):
    store.write_table(ROWS, rows(0.1, 0.2), {"failed": []})
    store.write_campaign(campaign("study", task("a1")))
    result = subprocess.run([sys.executable, "-c", HEAVY, *command, store.root], capture_output=True, text=True,
                            env={"PYTHONPATH": ":".join(sys.path)})
    assert result.stderr == "[]\n" and told in result.stdout


# --- opening


def test_opening_again_keeps_everything(store):
    store.write_table(ROWS, rows(0.1), {})
    assert Store.create(store.root).has(ROWS)
    assert Store.open(store.root).has(ROWS)
    assert Store.open(f"file://{store.root}").has(ROWS)


def test_the_root_opens_the_store_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store.create("here")
    monkeypatch.chdir("/")
    assert store.root == str(tmp_path / "here") and Store.open(store.root).root == store.root


def test_a_store_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="there is no store"):
        Store.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists() and not Store.occupied(tmp_path / "nowhere")


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="not a store"):
        Store.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("path", ["file/store", "file"])
def test_a_place_that_cannot_be_written(tmp_path, path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot write to store .*; a file is in its way"):
        Store.create(tmp_path / path)


@pytest.mark.parametrize(("content", "message"), [
    (json.dumps({"format": 4}), r"format 4.*reads 5; choose another folder"),
    (json.dumps([1]), "format None"), ("{", "cannot read")])
def test_another_format_is_refused_and_left_alone(store, content, message):
    Path(store.root, "store.json").write_text(content)
    for use in (Store.open, Store.create):
        with pytest.raises(InputError, match=message):
            use(store.root)
    assert Path(store.root, "store.json").read_text() == content
