"""Figures held against those of before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.compare import changes, flat, is_cost, main

OLD = {"tasks": 100, "machine": "a", "driver_cpu_ms_per_task": 0.5, "wall_seconds": 10, "resident_mib": [100, 200],
       "runs": [{"workers": 1, "edits_per_second": 10.0, "seconds": 3}], "cpu_seconds": {"report": 1.0}}


@pytest.fixture
def compare(tmp_path):
    def compare(new, name="figures.json"):
        (tmp_path / "old").mkdir(exist_ok=True), (tmp_path / "new").mkdir(exist_ok=True)
        (tmp_path / "old" / name).write_text(json.dumps(OLD))
        (tmp_path / "new" / name).write_text(json.dumps(new))
        app = typer.Typer()
        app.command()(main)
        result = CliRunner().invoke(app, [str(tmp_path / "old"), str(tmp_path / "new")])
        return result.exit_code, result.output
    return compare


def test_what_is_as_it_was_or_better_or_noise_is_not_told(compare):
    better = OLD | {"driver_cpu_ms_per_task": 0.54, "wall_seconds": 1000, "machine": "b", "resident_mib": [1, 219],
                    "runs": [{"workers": 1, "edits_per_second": 20.0, "seconds": 9}]}
    assert compare(better) == (0, "4 figures compared, 0 of them worse by more than 10%.\n")


@pytest.mark.parametrize(("change", "told"), [
    ({"driver_cpu_ms_per_task": 0.56}, "driver_cpu_ms_per_task got worse by 12%: 0.5 -> 0.56"),
    ({"resident_mib": [250, 100]}, "resident_mib got worse by 25%: 200 -> 250"),
    ({"runs": [{"workers": 1, "edits_per_second": 8.0}]}, "runs.0.edits_per_second got worse by 25%: 10.0 -> 8.0"),
    ({"cpu_seconds": {"report": 1.2}}, "cpu_seconds.report got worse by 20%: 1.0 -> 1.2"),
])
def test_what_got_worse_is_told_by_how_much(compare, change, told):
    code, output = compare(OLD | change)
    assert code == 1 and output == f"figures.json: {told}\n4 figures compared, 1 of them worse by more than 10%.\n"


def test_figures_of_something_else_are_not_compared(compare):
    code, output = compare(OLD | {"tasks": 200, "driver_cpu_ms_per_task": 5})
    assert code == 0 and "'tasks' was 100 and is 200: measured at something else" in output


def test_all_that_is_committed_is_compared_or_says_what_was_measured():
    for file in sorted((Path(__file__).parents[2] / "benchmarks").glob("*.json")):
        figures = json.loads(file.read_text())
        assert any(is_cost(name) for name, _ in flat(figures)), file
        assert all(change.share == 0 for change in changes(figures, figures))


def test_figures_of_editors_and_of_a_peer_are_compared_whatever_the_machine_does():
    old = {"peak_gflops": 97.0,
           "editing": {"rome": {"seconds_an_edit": {"10": 0.5}, "gflop": 20.1, "share_of_peak": 0.4}},
           "scoring": {"rome": {"seconds_a_case": 0.05, "seconds_a_case_kept": 0.02}},
           "methods": {"rome": {"seconds_a_case": {"ours": {"edit": 1.0}, "theirs": {"edit": 3.0}}, "scores": 98.0,
                                "speedup": {"edit": 3.0}, "difference": {"most": 1e-6}}}}
    new = json.loads(json.dumps(old))
    new["peak_gflops"], new["methods"]["rome"]["difference"]["most"] = 80.0, 2e-6
    new["methods"]["rome"]["seconds_a_case"]["theirs"]["edit"] = 6.0
    assert all(change.share == 0 for change in changes(old, new))
    new["editing"]["rome"]["seconds_an_edit"]["10"], new["methods"]["rome"]["speedup"]["edit"] = 1.0, 1.5
    new["scoring"]["rome"]["seconds_a_case"] = 0.1
    assert sorted(change.name for change in changes(old, new) if change.share == 1) == [
        "editing.rome.seconds_an_edit.10", "methods.rome.speedup.edit", "scoring.rome.seconds_a_case"]
    new["methods"]["rome"]["scores"] = 50.0
    with pytest.raises(ValueError, match="measured at something else"):
        changes(old, new)
