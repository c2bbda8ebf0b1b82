"""`editfleet diff` on stores as campaigns leave them, and on what may become of these."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from support.campaigns import FT
from typer.testing import CliRunner

from cluster.store.store import ROW_SCHEMA, CampaignRecord, Failure, ResultKey, Store, TaskRecord
from jobs.cli import app


@pytest.fixture(scope="module")
def diff():
    return lambda *arguments: CliRunner().invoke(app, ["diff", *map(str, arguments)])


def findings(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def write_store(folder, tasks, name="c", versions=(), digest="c"):
    """A store with a task for each entry: its id, editor, learning rate, and its cases' shares."""
    store, records = Store.create(folder), []
    for task, editor, rate, shares in tasks:
        records.append(TaskRecord(id=task, kind="score", output="rows", title=f"{editor} of {task}", edits=1))
        rows = [{"editor": editor, "model": "m", "dataset": "d", "protocol": "single", "edits": 1,
                 "metric": "reliability.exact", "value": share, "case_id": case, "subject": case, "task": task,
                 "seed": 0, "order": 0} for case, share in shares.items()]
        store.write_table(ResultKey("rows", task), pa.Table.from_pylist(rows, schema=ROW_SCHEMA), {
            "failed": [], "kind": "score", "device": "cpu", "versions": dict(versions),
            "identity": {"editor": {"name": editor, "config": {"lr": rate}}, "cases": ",".join(shares),
                         "titles": [editor, str(folder)]}, "model": {"digest": "m", "dtype": "float32"}})
    store.write_campaign(CampaignRecord(name=name, digest=digest, started=datetime.now(UTC), datasets=(),
                                        tasks=tuple(records)))
    return store


SHARES = {"a": 1.0, "b": 0.0, "c": 1.0}


def test_a_campaign_run_twice_is_the_same(done, diff, tmp_path):
    shutil.copytree(done, tmp_path / "other")
    result = diff(done, tmp_path / "other")
    assert result.exit_code == 0 and "They are the same; " in result.stdout, result.output
    assert diff(done, tmp_path / "other", "--format", "json").stdout == ""


def test_another_setting_and_more_cases(done, diff, invoke, write_campaign, tmp_path):
    """A real campaign with another learning rate of ft and two cases more."""
    changed = write_campaign(editors=["identity", {"name": "ft", "config": {**FT, "lr": 0.05}}],
                             datasets=[{"name": "testbed-cloze", "limit": 6}])
    assert invoke("run", changed, "--out", tmp_path / "other").exit_code == 0
    result = diff(done, tmp_path / "other", "--format", "json")
    assert result.exit_code == 1, result.output
    found = findings(result)
    only = {(each["side"], each["title"].split(" ")[0]) for each in found if each["finding"] == "task"}
    assert {side for side, _ in only} == {"A", "B"} and all(each["what"] == "only" for each in found
                                                           if each["finding"] == "task")
    cells = {each["editor"]: each for each in found
             if each["finding"] == "cell" and each["metric"] == "reliability.exact"}
    assert cells.keys() == {"identity", "ft"} and all(each["n"] == 4 for each in cells.values())
    assert cells["identity"]["difference"] == 0.0  # four cases that were judged alike, and two more
    told = {each["cell"]["editor"]: each["told"] for each in found if each["finding"] == "reasons"}
    [rate] = [line for line in told["ft"] if line.startswith("editor.config.lr")]
    assert rate.endswith("in A, 0.05 in B") and any(line.startswith("cases: ") for line in told["ft"])
    assert all(line.startswith("cases: ") for line in told["identity"])
    shown = diff(done, tmp_path / "other")
    assert "They differ" in shown.stdout and "editor.config.lr" in shown.stdout


def test_numbers_of_the_same_tasks_that_changed(diff, tmp_path):
    first = write_store(tmp_path / "a", [("t1", "ft", 0.1, SHARES)], versions={"torch": "2.13"})
    second = write_store(tmp_path / "b", [("t1", "ft", 0.1, {**SHARES, "b": 0.25})], versions={"torch": "2.14"})
    numbers, reasons = findings(result := diff(first.root, second.root, "--format", "json"))
    assert result.exit_code == 1
    assert (numbers["metric"], numbers["numbers"], numbers["changed"], numbers["largest"], numbers["case_id"]) == (
        "reliability.exact", 3, 1, 0.25, "b")
    assert reasons["told"] == ["versions.torch: 2.13 in A, 2.14 in B"] and reasons["cell"] is None
    assert diff(first.root, second.root, "--tolerance", "0.25").exit_code == 0
    shown = diff(first.root, second.root, "--format", "markdown").stdout
    assert "| reliability.exact | 3 | 1 | 0 | 0 | +0.25 | b | ft of t1 |" in shown


def test_missing_failed_and_damaged_results(diff, tmp_path):
    tasks = [(f"t{number}", "ft", 0.1, SHARES) for number in range(4)]
    first, second = (write_store(tmp_path / name, tasks) for name in "ab")
    second.remove(ResultKey("rows", "t0"))
    second.write_failure(Failure(task="t0", title="ft of t0", reason="Traceback\nValueError: \x1b[31mtoo hot"))
    second.remove(ResultKey("rows", "t1"))
    (tmp_path / "b/rows/t2.parquet").write_bytes(b"PAR1" * 500)
    result = diff(first.root, second.root)
    told = " ".join(result.output.split())
    assert result.exit_code == 1 and "\x1b" not in told
    assert "rows/t2 cannot be used" in told and "it is left out" in told
    assert "given up in B: ft of t0: ValueError: \\x1b[31mtoo hot" in told
    assert "missing in B: ft of t1" in told and "missing in B: ft of t2" in told
    assert "1 task compared" in told


def test_a_cell_with_other_tasks_pairs_the_cases_of_both(diff, tmp_path):
    first = write_store(tmp_path / "a", [("t1", "ft", 0.1, {**SHARES, "d": 1.0}), ("t2", "rome", 0.1, SHARES)])
    second = write_store(tmp_path / "b", [("t3", "ft", 0.2, {"a": 0.0, "b": 0.0, "c": 1.0}), ("t4", "kn", 1, SHARES)])
    found = findings(diff(first.root, second.root, "--format", "json"))
    [cell] = [each for each in found if each["finding"] == "cell"]
    assert (cell["editor"], cell["mean_a"], cell["n"]) == ("ft", 0.75, 3)
    assert cell["mean_b"] == pytest.approx(1 / 3) and cell["difference"] == pytest.approx(-1 / 3)
    assert {(each["side"], each["title"]) for each in found if each["finding"] == "task"} == {
        ("A", "ft of t1"), ("A", "rome of t2"), ("B", "ft of t3"), ("B", "kn of t4")}
    [reasons] = [each for each in found if each["finding"] == "reasons"]
    assert "editor.config.lr: 0.1 in A, 0.2 in B" in reasons["told"]


def test_campaigns_by_name(diff, tmp_path):
    store = write_store(tmp_path / "a", [("t1", "ft", 0.1, SHARES)], name="one", digest="d1")
    write_store(tmp_path / "a", [("t2", "ft", 0.2, SHARES)], name="two", digest="d2")
    assert diff(store.root, store.root, "--campaign", "one").exit_code == 0
    assert diff(store.root, store.root, "--campaign", "one", "--campaign-b", "two").exit_code == 1
    wrong = diff(store.root, store.root, "--campaign", "on")
    assert wrong.exit_code == 2 and "Did you mean 'one'?" in wrong.stderr


def test_wrong_input(diff, tmp_path):
    store = write_store(tmp_path / "a", [("t1", "ft", 0.1, SHARES)])
    for arguments, told in (((store.root, tmp_path / "none"), "there is no store at"),
                            ((store.root, store.root, "--tolerance", "nan"), "--tolerance"),
                            ((store.root, store.root, "--tolerance", "-1"), "tolerance")):
        result = diff(*arguments)
        assert result.exit_code == 2 and told in result.stderr
