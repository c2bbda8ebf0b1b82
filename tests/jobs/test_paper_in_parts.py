"""The whole paper as one campaign: its tasks are those of its parts, and its cost is told before anything is there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml
from support.paper_stand_ins import use_stand_ins
from typer.testing import CliRunner

from cluster.campaign.file import load_campaign
from editors.core.errors import InputError
from jobs.cli import app
from jobs.console import CAMPAIGNS, find_campaign, plan_campaign

SINGLE = ("table2", "table3", "table4", "figure5", "figure6", "figure7")


@pytest.mark.parametrize("scale", ["testbed", None])
def test_the_papers_tasks_are_those_of_its_tables_and_figures(scale, tmp_path, monkeypatch):
    use_stand_ins(tmp_path, monkeypatch)
    data = None if scale else "data"
    whole = plan_campaign("paper", scale, data)
    parts = [plan_campaign(name, scale, data) for name in SINGLE]
    assert set(whole.tasks) == {id for part in parts for id in part.tasks}
    before: set[str] = set()
    for id, task in whole.tasks.items():  # what a task needs comes before it, whichever part it is of
        assert before.issuperset(task.needs)
        before.add(id)
    assert whole.campaign.workers.count == (1 if scale else None)


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory):
    """Runs a command where there is neither network, nor model, nor data."""
    def run(*arguments):
        home = tmp_path_factory.mktemp("home")
        environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "COLUMNS": "200",
                       "PYTHONPATH": str(CAMPAIGNS.parents[1])}
        return subprocess.run([sys.executable, "-m", "jobs.cli", *arguments], cwd=home, env=environment,
                              capture_output=True, text=True, timeout=300)
    return run


def test_the_paper_has_a_cost_before_anything_is_there(nowhere):
    result = nowhere("plan", "paper", "--devices", "8xV100-32GB")
    assert result.returncode == 0, result.stderr
    told = result.stdout
    for words in ("devices: 2", "8xV100-32GB, 4 workers", "What takes most: training of", "EleutherAI/gpt-j-6b: not on",
                  "taken as 1000 cases", "cannot be run"):
        assert words in told, told
    rows = {cells[0]: cells[1:] for line in told.splitlines() if "│" in line
            for cells in [[cell.strip() for cell in line.strip("│").split("│")]]}
    hours = [float(row[2]) for work, row in rows.items() if len(row) == 4 and work != "in all" and row[3].endswith("%")]
    assert len(hours) == 17 and sum(hours) == pytest.approx(float(rows["in all"][2]), rel=0.01)
    assert rows["rome"][1] == ""  # of T5, it has none


def test_what_is_planned_so_does_not_run(nowhere):
    result = nowhere("run", "paper", "--out", "store")
    assert result.returncode == 2 and "there is no file" in result.stderr
    assert result.stderr.count("wikipedia.txt'") == 1  # which all parts name


def test_a_model_that_is_not_there_is_refused_by_plans_without_devices(tmp_path, monkeypatch):
    use_stand_ins(tmp_path, monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    fields = {"name": "mine", "models": [{"name": "gpt-j", "path": "EleutherAI/gpt-j-6b"}],
              "datasets": [{"name": "testbed-cloze", "limit": 5}], "editors": ["identity"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(fields))

    def told(*more):
        return CliRunner().invoke(app, ["plan", str(tmp_path / "mine.yaml"), *more], env={"COLUMNS": "200"})

    assert told().exit_code == 2
    assert told("--devices", "1xH200").exit_code == 0
    refused = told("--devices", "1xTPU")
    assert refused.exit_code == 2 and "H200-141GB" in refused.stderr
    fields["models"][0]["path"] = "nobody/knows-it"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(fields))
    assert told("--devices", "1xH200").exit_code == 2  # its shape is not known


@pytest.mark.parametrize(("change", "told"), [
    ({"parts": []}, "expected a list"), ({"parts": ["none.yaml"]}, r"mine.yaml, line \d+, parts\[0\]: there is no"),
    ({"chunk": 5}, "'chunk' is its parts' to say"), ({"parts": ["mine.yaml"]}, "a part of another campaign")])
def test_parts_that_cannot_be_are_refused(change, told, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "parts": ["quickstart.yaml"], **change}))
    (tmp_path / "quickstart.yaml").write_text(find_campaign("quickstart").read_text())
    with pytest.raises(InputError, match=told):
        load_campaign(tmp_path / "mine.yaml")
