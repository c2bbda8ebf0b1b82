"""`editfleet report --format html`: the page of a store."""

import json
import re
from datetime import UTC, datetime

import pytest
from support.report_rows import rows
from typer.testing import CliRunner

from cluster.store.store import CampaignRecord, DatasetRecord, Failure, ResultKey, Store, TaskRecord
from evaluators.cases import Skipped
from jobs.cli import app

TEXT = "name: table2 # \u202e<b>\nmodels: [gpt-j]\n"
HUB = "/home/user/.cache/huggingface/hub/models--EleutherAI--gpt-j-6b/snapshots/abc"


@pytest.fixture
def store(tmp_path):
    """Tasks of two editors on a model called gpt-j, of which one is done: its function takes where that model is."""
    def make(place=HUB, parameters=6_050_882_784):
        found = Store.create(tmp_path / "store")
        tasks = tuple(TaskRecord(id=f"{number:024}", kind="score", output="rows", title=f"{editor} on gpt-j", edits=4)
                      for number, editor in enumerate(("rome", "ft")))
        told = {"failed": [{"case_id": "c9", "reason": "too long"}], "device": "cuda A", "versions": {"torch": "1.2"},
                "model": {"path": place, "digest": "d1", "dtype": "float32", "shape": {"parameters": parameters}},
                "identity": {"titles": ["rome", "gpt-j", "zsre"], "name": "rome", "version": 1, "config": {"layer": 5}}}
        found.write_table(ResultKey("rows", tasks[0].id), rows(4, editors={"rome": 0.9}, model="gpt-j", dataset="zsre",
                                                               protocols=(("single", 1),)), told)
        found.write_failure(Failure(task=tasks[1].id, title=tasks[1].title, reason="Trace\nout of memory"))
        found.write_campaign(CampaignRecord(
            name="table2", text=TEXT, digest="d", started=datetime(2030, 1, 1, tzinfo=UTC), tasks=tasks,
            tags={"who": "me"},
            datasets=(DatasetRecord(name="zsre", cases=4, skipped=(Skipped(case_id="r1", reason="no subject"),)),)))
        return tmp_path / "store"
    return make


def run(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_a_page_tells_what_a_store_holds_and_lacks(store, tmp_path):
    place = store()
    result = run(place, "--format", "html", "--out", tmp_path / "new/page")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "new/page/index.html")
    whole = (tmp_path / "new/page/index.html").read_text()
    assert "<code>name: table2 # \\u202e&lt;b&gt;\nmodels: [gpt-j]\n</code>" in whole
    text = re.sub(r"<[^>]+>", " ", whole)
    plain = " ".join(text.replace("&#34;", '"').replace("&#39;", "'").split())
    for told in ("1 of 2 tasks are not done", f"editfleet run table2 --data FOLDER --out {place}", "out of memory",
                 "cuda A 1 tasks", "c9 too long 1", "r1 of zsre no subject", "torch 1.2", "d1", "who me",
                 "2030-01-01 00:00 UTC", "paper 99.18", json.dumps({"name": "rome", "version": 1,
                                                                    "config": {"layer": 5}})):
        assert told in plain, told


def test_the_tables_of_a_page_and_how_they_came_about_are_for_programs_too(store):
    *lines, last = map(json.loads, run(store(), "--page", "--format", "json").stdout.splitlines())
    assert {line["section"] for line in lines} >= {"results", "methods", "locality"}
    told = last["provenance"]
    assert told["texts"] == {"table2": TEXT} and told["digest"] == "d"
    assert told["failures"] == [{"what": "ft on gpt-j", "summary": "out of memory", "reason": "Trace\nout of memory",
                                 "tasks": 1}]
    assert (told["devices"], told["versions"]) == ({"cuda A": 1}, {"torch": "1.2"})
    assert [each["digest"] for each in told["models"]] == ["d1"] and told["started"] == "2030-01-01 00:00 UTC"


def test_a_page_made_while_its_campaign_runs_says_so(store, tmp_path):
    place = store()
    with Store.open(place).lease("table2"):
        assert run(place, "--format", "html", "--out", tmp_path / "page").exit_code == 0
    text = (tmp_path / "page/index.html").read_text()
    assert "It runs just now: table2, by" in text and "1 of 2 tasks are not done" in text


def test_provenances_are_read_once_for_all_that_is_told_of_them(store, tmp_path, monkeypatch):
    place, asked, read = store(), [], Store.provenances
    monkeypatch.setattr(Store, "provenances", lambda self, keys, pick: asked.append(1) or read(self, keys, pick))
    assert run(place, "--format", "html", "--out", tmp_path / "page").exit_code == 0 and asked == [1]


def test_a_store_is_told_as_it_would_be_named_from_here(store, tmp_path, monkeypatch):
    place = store()
    monkeypatch.chdir(tmp_path)
    assert run(place, "--format", "html", "--out", "page").exit_code == 0
    text = (tmp_path / "page/index.html").read_text()
    assert "--out store" in text and str(tmp_path) not in text


@pytest.mark.parametrize("where", [("/models/gptj", 6_050_882_784), (HUB, 11_559_424)])
def test_a_model_is_the_papers_by_where_it_is_and_its_size(store, tmp_path, where):
    result = run(store(*where), "--format", "html", "--out", tmp_path / "page")
    assert result.exit_code == 0 and "paper 99.18" not in (tmp_path / "page/index.html").read_text()


@pytest.mark.parametrize(("options", "told"), [
    (["--format", "html"], "needs the folder"),
    (["--format", "html", "--out", "x", "--figure", "y.svg"], "leave '--versus'"),
    (["--format", "html", "--out", "x", "--paper"], "leave '--versus'"),
    (["--page", "--versus", "ft"], "the page's tables")])
def test_options_that_do_not_go_together(store, options, told):
    result = run(store(), *options)
    assert result.exit_code == 2 and told in result.stderr
