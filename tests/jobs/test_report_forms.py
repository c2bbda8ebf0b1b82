"""`editfleet report` into files, in all forms, and of several stores."""

import csv
import io
import shlex
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from cluster.store.store import ROW_SCHEMA, CampaignRecord, ResultKey, Store, TaskRecord
from jobs.cli import app
from jobs.console import read_campaign
from jobs.filling import as_run
from jobs.sources import read_source


def write(place, name, values, task=None, lost=()):
    """A store with a task for each editor, of which those in `lost` are not done."""
    store = Store.create(place)
    tasks = [TaskRecord(id=f"{task or editor:0>24}", kind="score", output="rows", title=editor, edits=1)
             for editor in values]
    for record, (editor, shares) in zip(tasks, values.items(), strict=True):
        rows = [{"editor": editor, "model": "gpt-j", "dataset": "zsre", "protocol": "single", "edits": 1,
                 "metric": metric, "value": float(share), "case_id": case, "subject": case, "task": record.id,
                 "settings": "s", "seed": 0, "order": 0} for case, share in zip("abcd", shares, strict=True)
                for metric in ("reliability.exact", "reliability.token")]
        if editor not in lost:
            store.write_table(ResultKey("rows", record.id), pa.Table.from_pylist(rows, schema=ROW_SCHEMA), {})
    store.write_campaign(CampaignRecord(name=name, digest=name, started=datetime.now(UTC), datasets=(),
                                        tasks=tuple(tasks)))
    return place


FT, ROME = {"identity": (0, 0, 0, 0), "ft": (1, 0, 0, 0)}, {"rome": (1, 1, 1, 0)}


@pytest.fixture
def stores(tmp_path):
    return write(tmp_path / "one", "table2", FT), write(tmp_path / "two", "mine", ROME)


def report(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_every_form_is_written_to_a_file_as_it_is_shown(stores, tmp_path):
    for form, name in (("latex", "report.tex"), ("csv", "report.csv"), ("markdown", "report.md"),
                       ("json", "report.jsonl")):
        shown = report(stores[0], "--format", form)
        assert shown.exit_code == 0, shown.output
        written = report(stores[0], "--format", form, "--out", tmp_path / "new" / name)
        assert written.exit_code == 0 and written.stdout == ""
        assert (tmp_path / "new" / name).read_text() == shown.stdout != ""
        assert report(stores[0], "--format", form, "--out", tmp_path).exit_code == 0
        assert (tmp_path / name).read_text() == shown.stdout
    assert report(stores[0], "--out", tmp_path / "table.txt").exit_code == 0
    assert "25.0 ±" in (tmp_path / "table.txt").read_text()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_papers_numbers_and_what_is_missing(stores):
    shown = report(stores[0], "--paper", "--format", "markdown").stdout
    assert "| Reliability, Yao et al. | - | - | 54.70 |" in shown and " | 25.0 ±" in shown
    assert "editfleet run" not in shown  # its campaign is that very table: what is not planned is not made by it
    lines = list(csv.DictReader(io.StringIO(report(stores[0], "--paper", "--format", "csv").stdout)))
    assert [(line["editor"], line["paper"]) for line in lines] == [("identity", ""), ("ft", "0.547")]


def test_commands_name_the_campaign_that_lacks_tasks(tmp_path):
    place = write(tmp_path / "a store", "table2", FT, lost=["ft"])
    shown = report(place, "--paper", "--format", "markdown")
    assert f"made by: editfleet run table2 --data FOLDER --out '{place}'" in shown.stdout
    assert "1 of 2 tasks of 'table2' are not done" in shown.stderr


@pytest.mark.parametrize(("scale", "settings", "options"), [
    (None, (), ""), ("testbed", (), "--scale testbed"),
    ("testbed", ("editors=[ft, rome]", "chunk=5"),
     """--scale testbed --set 'editors=["ft", "rome"]' --set chunk=5""")])
def test_a_shipped_campaign_is_gone_on_with_as_it_was_run(stores, scale, settings, options):
    record = read_source("A", str(stores[0]), None).record
    ran = read_campaign("table2", scale, None, settings)
    assert as_run(record.model_copy(update={"text": ran.text})) == options
    given = shlex.split(options)
    again = read_campaign("table2", scale, None, [word for word in given if "=" in word])
    assert again.model_dump() == ran.model_dump()


def test_a_command_stays_on_one_line(tmp_path):
    place = write(tmp_path / ("a" * 150), "mine", FT, lost=["ft"])
    shown = report(place, "--paper").stdout.splitlines()
    assert f"editfleet run FILE --out {place}  # FILE: the file of campaign 'mine'" in shown
    assert f"editfleet run table2 --data FOLDER --out {place}" in shown


def test_several_stores_are_one_report(stores):
    shown = report(*stores, "--format", "markdown")
    assert shown.exit_code == 0, shown.output
    assert [line.split(" | ")[0] for line in shown.stdout.splitlines() if line.startswith("| ")][2:] == [
        "| identity", "| ft", "| rome"]
    assert f"A: {stores[0]}, campaign 'table2'" in shown.stderr and f"B: {stores[1]}, campaign 'mine'" in shown.stderr
    compared = report(*stores, "--versus", "ft", "--format", "markdown").stdout
    assert "| rome | 4 | +50.0 ±" in compared and "corrected by Holm (1979) for 2 comparisons" in compared


def test_what_stores_lack_is_told_of_each(tmp_path):
    first = write(tmp_path / "one", "c", FT, lost=["ft"])
    second = write(tmp_path / "two", "c", FT)
    shown = report(first, second, "--format", "csv")
    assert "A: 1 of 2 tasks of 'c' are not done; other stores have 1 of them" in shown.stderr
    assert "what A and others have counts once, as A has it: 1 task" in shown.stderr
    cases = {line["editor"]: line["n"] for line in csv.DictReader(io.StringIO(shown.stdout))}
    assert cases == {"identity": "4", "ft": "4"}


def test_other_tasks_under_the_same_names_are_not_pooled(tmp_path):
    first, second = write(tmp_path / "one", "c", FT), write(tmp_path / "two", "d", {"ft": (1, 1, 1, 1)}, task="other")
    shown = report(first, second, "--format", "csv")
    means = {(line["editor"], line["dataset"]): line["mean"] for line in csv.DictReader(io.StringIO(shown.stdout))}
    assert means == {("identity", "zsre [store A]"): "0.0", ("ft", "zsre [store A]"): "0.25",
                     ("ft", "zsre [store B]"): "1.0"}
    assert "not pooled" in shown.stderr
    assert "| zsre [store B] | gpt-j | Reliability, Yao et al. |" in report(first, second, "--paper", "--format",
                                                                            "markdown").stdout


def test_damage_is_told_of_its_store(stores):
    [damaged] = stores[1].glob("rows/*.parquet")
    damaged.write_bytes(b"PAR1")
    shown = report(*stores)
    assert shown.exit_code == 0 and f"{stores[1]}: rows/" in shown.stderr and "B: 1 of 1 tasks" in shown.stderr


def test_a_campaign_that_one_store_lacks(stores):
    shown = report(*stores, "--campaign", "table2")
    assert shown.exit_code == 2 and "mine" in shown.stderr


@pytest.mark.parametrize("form", ["table", "json", "markdown", "latex", "csv"])
@pytest.mark.parametrize("arguments", [(), ("--paper",), ("--all",), ("--page",), ("--versus", "identity")])
def test_hostile_names_move_no_cursor_and_turn_no_text(tmp_path, form, arguments):
    values = {name: (1, 0, 1, 0)
              for name in ("identity", "\x1b[31m\x07|<b>", "[bold]\u202ex", "=1+1", "$\\input{x}$\r\n")}
    store = Store.create(tmp_path)
    tasks = tuple(TaskRecord(id=f"{number:024}", kind="score", output="rows", title=name, edits=1)
                  for number, name in enumerate(values))
    for task, (name, shares) in zip(tasks, values.items(), strict=True):
        rows = [{"editor": name, "model": f"m{name}", "dataset": f"d{name}", "protocol": "single", "edits": 1,
                 "metric": "reliability.token", "value": float(share), "case_id": case, "subject": case,
                 "task": task.id, "settings": "s", "seed": 0, "order": 0}
                for case, share in zip("abcd", shares, strict=True)]
        store.write_table(ResultKey("rows", task.id), pa.Table.from_pylist(rows, schema=ROW_SCHEMA), {})
    store.write_campaign(CampaignRecord(name="c\x1b[0m", digest="c", started=datetime.now(UTC), datasets=(),
                                        tasks=tasks))
    shown = report(tmp_path, "--format", form, *arguments)
    assert shown.exit_code == 0, shown.output
    for text in (shown.stdout, shown.stderr):
        assert not set(text) & set("\x1b\x07\r\u202e")
