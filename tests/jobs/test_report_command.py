"""`editfleet report` on a small store: differences, and the columns of the paper."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from cluster.store.records import SweptEntry
from cluster.store.store import ROW_SCHEMA, CampaignRecord, ResultKey, Store, TaskRecord
from jobs.cli import app

SHARES = {"identity": (0, 0, 0, 0), "ft": (1, 0, 1, 0), "rome": (1, 1, 1)}  # rome lacks the last case


@pytest.fixture
def report(tmp_path):
    """Runs the command on a store with one task for each editor."""
    store = Store.create(tmp_path)
    tasks = tuple(TaskRecord(id=f"{number:024}", kind="score", output="rows", title=editor, edits=1)
                  for number, editor in enumerate(SHARES))
    for task, (editor, shares) in zip(tasks, SHARES.items(), strict=True):
        rows = [{"editor": editor, "model": "m", "dataset": "d", "protocol": "single", "edits": 1,
                 "metric": metric, "value": share * weight, "case_id": case, "subject": case, "task": task.id,
                 "seed": 0, "order": 0} for case, share in zip("abcd", shares, strict=False)
                for metric, weight in (("reliability.exact", 1.0), ("reliability.token", 0.5))]
        store.write_table(ResultKey("rows", task.id), pa.Table.from_pylist(rows, schema=ROW_SCHEMA), {"failed": []})
    store.write_campaign(CampaignRecord(name="c", digest="c", started=datetime.now(UTC), datasets=(), tasks=tasks))
    return lambda *arguments: CliRunner().invoke(app, ["report", str(tmp_path), *map(str, arguments)])


def test_differences_and_what_was_left_out(report):
    result = report("--versus", "identity", "--format", "json")
    assert result.exit_code == 0, result.output
    ft, rome = (row for row in map(json.loads, result.stdout.splitlines()) if row["metric"] == "reliability.exact")
    assert (ft["editor"], ft["versus"], ft["difference"], ft["n"], ft["p"]) == ("ft", "identity", 0.5, 4, 0.5)
    assert (rome["difference"], rome["n"], rome["p"]) == (1, 3, 0.25)
    assert "only one of 'rome' and 'identity' has them: 1 case" in result.stderr and "'ft'" not in result.stderr


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_tables(report, form):
    result = report("--versus", "rome", "--format", form)
    assert result.exit_code == 0 and "difference to rome" in " ".join(result.stdout.split())
    assert "-33.3 ±" in result.stdout and "identity" in result.stdout


def test_an_unknown_editor(report):
    result = report("--versus", "romme")
    assert result.exit_code == 2 and "Did you mean 'rome'?" in result.stderr


def test_the_columns_of_the_paper(report):
    shown = report("--paper", "--format", "markdown")
    assert shown.exit_code == 0 and shown.stdout.startswith("Table 2 of Yao et al. 2023")
    head, _, line = (line.strip("|").split(" | ") for line in shown.stdout.splitlines() if line.startswith("|"))
    cells = dict(zip(map(str.strip, head), map(str.strip, line), strict=True))
    assert (cells["rome"], cells["cases"], cells["serac"]) == ("50.0 ±0.0", "4", "—")
    assert "editfleet run table2 --data FOLDER --out " in shown.stdout
    assert "Reliability is reliability.token" in shown.stdout and "exact" not in shown.stdout
    assert "Reliability is reliability.token" in " ".join(report("--paper").stdout.split())
    assert "| ft | 3 | -16.7 ±" in report("--paper", "--versus", "rome", "--format", "markdown").stdout


def test_all_metrics_and_the_papers_exclude_each_other(report):
    result = report("--paper", "--all")
    assert result.exit_code == 2 and "leave one of them out" in result.stderr


def test_what_is_damaged_is_named(report, tmp_path):
    [damaged] = tmp_path.glob("rows/*0.parquet")
    damaged.write_bytes(b"PAR1" * 500)
    told = " ".join(report().stderr.split())
    assert f"rows/{damaged.stem} cannot be used: it has 2000 bytes" in told and "it is left out" in told
    assert "1 of 3 tasks of 'c' are not done" in told


@pytest.fixture
def sweep(report, tmp_path):
    """The store's campaign as if its editors were points of a sweep."""
    store = Store.open(tmp_path)
    [record] = store.campaigns()
    entries = tuple(SweptEntry(part="editors", name=name, varies="any", settings={"lr": rate})
                    for name, rate in (("rome", 0.5), ("ft", 1e-3)))
    store.write_campaign(record.model_copy(update={"sweep": entries}))
    return report


def test_a_sweep_has_a_table_with_its_best_point_below_the_others(sweep):
    shown = sweep("--format", "markdown").stdout
    usual, _, swept = shown.partition("any by lr")
    assert "| rome |" in usual and "**" not in usual
    rows = [line for line in swept.splitlines() if line.startswith("|")]
    assert rows[0].startswith("| lr | cases | reliability.exact |")
    assert rows[2].startswith("| 0.001 | 4 | 50.0 ±") and rows[3] == "| 0.5 | 3 | **100.0 ±0.0** |"
    told = " ".join(sweep().stdout.split())
    assert "any by lr" in told and "*100.0 ±0.0" in told
    assert "any by lr" not in sweep("--versus", "identity").stdout


def test_programs_are_told_the_points_of_a_sweep(sweep):
    *_, first, second = map(json.loads, sweep("--format", "json").stdout.splitlines())
    assert [each["settings"] for each in (first, second)] == [{"lr": 0.5}, {"lr": 0.001}]


def test_the_figure_of_a_sweep_is_over_its_setting(sweep, tmp_path):
    assert sweep("--figure", tmp_path / "x/sweep.svg").exit_code == 0
    assert "over lr, logarithmic" in (tmp_path / "x/sweep.svg").read_text()
