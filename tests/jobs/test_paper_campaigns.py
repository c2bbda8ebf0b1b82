"""The paper's campaigns plan on its models and data (stand-ins of the same form), and on the built-in models."""

from collections import Counter

import pytest
import yaml
from support.paper_stand_ins import use_stand_ins
from typer.testing import CliRunner

from jobs.cli import app
from jobs.console import CAMPAIGNS, find_campaign, plan_campaign

PAPER = ("table2", "table3", "figure6", "figure7")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with the paper's data, a thousand records each, where its models are known but for their weights."""
    use_stand_ins(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", PAPER)
def test_it_plans_on_the_papers_models_and_data(name, elsewhere):
    planned = plan_campaign(name, None, "data")
    kinds = Counter(task.kind for task in planned.tasks.values())
    cells = {(task.editor_title, task.model_title) for task in planned.tasks.values() if task.kind == "score"}
    assert ("rome", "t5-xl") not in cells and ("memit", "gpt-j") in cells and ("identity", "t5-xl") in cells
    assert kinds["train"] and kinds["baseline"] and kinds["statistics"]
    if name.startswith("table"):
        assert len(cells) == (20 if name == "table2" else 18)  # table2 has KN twice
    if name != "table3":
        assert any("82.8 %" in note for note in planned.notes)


@pytest.mark.parametrize("name", PAPER)
def test_it_plans_on_the_built_in_models(name):
    planned = plan_campaign(name, "testbed", None)
    trained = [task for task in planned.tasks.values() if task.kind == "train"]
    assert all(task.shipped for task in trained if task.editor.name in ("serac", "ke", "mend"))
    assert {task.model_title for task in planned.tasks.values() if task.kind == "score"} == {"gpt-j", "t5-xl"}


def told_by_plan(*arguments):
    """What the command prints, its table's rows by their first cell."""
    result = CliRunner().invoke(app, ["plan", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in result.stdout.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in rows}, result.stdout


def test_the_plan_at_testbed_scale_is_told_without_a_cluster():
    rows, told = told_by_plan("table2", "--scale", "testbed", "--workers", "2")
    assert rows["score"][:2] == ["80", "2000"] and rows["score"][-1] == "estimated"
    assert rows["gpt-j (float32)"][-1] == rows["t5-xl (float32)"][-1] == "one device"
    assert "on 2 workers" in told and "one CPU core" in told and "Warning" not in told and "V100" not in told


def test_the_plan_tells_where_the_papers_models_fit(elsewhere, tmp_path):
    rows, told = told_by_plan("table2", "--data", "data")
    assert rows["moments"][0] == "2" and int(rows["statistics"][0]) == 50  # of ROME's layer and MEMIT's
    weights, held, _, whole, place = rows["gpt-j (float32)"]
    assert float(weights) == pytest.approx(4 * 6.05e9 / 2**30, abs=0.1) and float(held) == 12  # moments of six layers
    assert float(whole) > 32 and place == "gang of 2 (devices: 2)"
    assert rows["t5-xl (float32)"][-1] == "one device"
    assert "Warning: gpt-j needs about" in told and "Warning: t5-xl" not in told and "V100 in half precision" in told

    fields = yaml.safe_load(find_campaign("table2").read_text())
    fields["models"][0]["dtype"] = "float16"
    for changes, expected, warned in (({}, "one device", False), ({"memory": 24}, "gang of 2", True),
                                      ({"memory": 24, "devices": 2}, "gang of 2", False),
                                      ({"memory": 17}, "offload", True),
                                      ({"memory": 17, "offload": "cpu"}, "offload", False),
                                      ({"memory": 15}, "nowhere", True)):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**fields, "workers": changes}))
        rows, told = told_by_plan("mine.yaml", "--data", "data")
        assert rows["gpt-j (float16)"][-1].startswith(expected), (changes, rows["gpt-j (float16)"])
        assert ("Warning: gpt-j" in told) == warned


@pytest.mark.parametrize("name", PAPER)
def test_files_that_are_not_there_are_all_told_with_where_they_are_published(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["plan", name])
    assert result.exit_code == 2
    told, where = result.stderr.split("Where they are published:")
    assert "--data FOLDER" in where and "github.com/zjunlp/EasyEdit" in where
    files = yaml.safe_load(find_campaign(name).read_text())["published"]
    assert len(files) >= 3
    for file in files:
        assert f"there is no file '{CAMPAIGNS / file}'" in told and file in where


def test_files_that_only_some_editors_need_are_told_when_one_does(elsewhere, tmp_path):
    (tmp_path / "data" / "wikipedia.txt").unlink()
    result = CliRunner().invoke(app, ["plan", "table2", "--data", "data"])
    assert result.exit_code == 2 and result.stderr.count("there is no file") == 1
    assert "table2.yaml, line" in result.stderr and "one article a line" in result.stderr

    fields = yaml.safe_load(find_campaign("table2").read_text())
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**fields, "editors": ["identity", "ft"]}))
    assert CliRunner().invoke(app, ["plan", "mine.yaml", "--data", "data"]).exit_code == 0
