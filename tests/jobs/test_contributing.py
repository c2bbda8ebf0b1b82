"""What CONTRIBUTING.md and README.md show, works: their examples are read from the pages, registered and run."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

import editors
from cluster.campaign.file import load_campaign
from cluster.driver import run_campaign
from cluster.plan.planner import plan
from cluster.store.store import Store
from editors import EditRequest, overlay
from evaluators import protocols
from evaluators.report import samples
from evaluators.report.tables import summarise
from evaluators.scoring import measures, metrics
from jobs import cli

ROOT = Path(__file__).parents[2]
CONTRIBUTING, README = ((ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "README.md"))
TABLES = {"EDITORS": editors.EDITORS, "PROTOCOLS": protocols.PROTOCOLS, "MEASURES": measures.MEASURES}


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def forget():
    """What is kept of the tables."""
    measures._all_metrics.cache_clear()
    samples._order.cache_clear()


@pytest.fixture
def registered(monkeypatch, tmp_path):
    """The page's editor, protocol, measure and metric, in their tables for one test."""
    for code in blocks(CONTRIBUTING, "python"):
        if path := re.match(r"# (\S+)\.py\n", code):
            file = tmp_path / f"{Path(path[1]).name}.py"
            file.write_text(code)
            spec = importlib.util.spec_from_file_location(path[1].replace("/", "."), file)
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, module.__name__, module)
            spec.loader.exec_module(module)
        for table, name, target in re.findall(r'^(\w+) = {\.\.\., "(\S+)": "(\S+)"}$', code, re.M):
            monkeypatch.setitem(TABLES[table], name, target)
    source = Path(metrics.__file__).read_text(encoding="utf-8")
    for change in blocks(CONTRIBUTING, "diff"):
        before, added = change.rstrip("\n").split("\n+")
        assert source.count(before[1:]) == 1, before
        source = source.replace(before[1:], f"{before[1:]}\n{added}")
    changed = {"__name__": metrics.__name__}
    exec(compile(source, metrics.__file__, "exec"), changed)
    monkeypatch.setattr(metrics, "_accuracy", changed["_accuracy"])
    for name in changed["METRICS"].keys() - metrics.METRICS.keys():
        monkeypatch.setitem(metrics.METRICS, name, changed["METRICS"][name])
    forget()
    yield
    forget()


def test_a_campaign_runs_with_all_four(registered, write_campaign, local_pool, tmp_path):
    path = write_campaign(editors=["identity", {"name": "nudge", "config": {"layer": 1, "rate": 5.0}}],
                          protocols=["single", {"name": "again", "times": [1, 3]}], measures={"leak": {"texts": 1}})
    planned, store = plan(load_campaign(path)), Store.create(tmp_path / "store")
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    rows = store.rows(store.campaigns()[0].tasks)
    means = {(row.editor, row.protocol, row.edits, row.metric): row.mean for row in summarise(rows)}
    assert {protocol for _, protocol, *_ in means} == {"single", "again"}
    assert {edits for _, protocol, edits, _ in means if protocol == "again"} == {1, 3}

    # Once again is once; three steps go further than one; the unedited model stands still.
    assert means["nudge", "again", 1, "reliability.magnitude"] == means["nudge", "single", 1, "reliability.magnitude"]
    assert means["nudge", "again", 3, "reliability.magnitude"] > means["nudge", "again", 1, "reliability.magnitude"]
    assert means["identity", "again", 3, "leak"] == means["identity", "single", 1, "leak"]
    assert 0 <= means["nudge", "single", 1, "leak"] != means["identity", "single", 1, "leak"]
    for editor in ("identity", "nudge"):
        first, exact = (means[editor, "again", 3, f"reliability.{how}"] for how in ("first", "exact"))
        assert exact <= first <= 1


def test_they_are_known_everywhere(registered):
    shown = CliRunner().invoke(cli.app, ["metrics"], env={"COLUMNS": "200"}).stdout
    assert "reliability.first" in shown and "leak" in shown
    page = CliRunner().invoke(cli.app, ["schema", "--markdown"]).stdout
    for title in ("`config` of `nudge`", "`protocols`: `again`", "`measures`: `leak`"):
        assert f"## {title}\n" in page
    assert "| `times` | list of integer > 0 | `[2]` | How often each edit is made. Ours. |" in page


@pytest.mark.parametrize("kind", ["tiny_gptj", "tiny_t5"])
def test_the_editor_steps_down_the_gradient(registered, kind, request):
    model = request.getfixturevalue(kind)
    wanted = EditRequest("Ann Lee was born in", "Ann Lee", "Oslo")
    batch = model.collate([model.encode(wanted.prompt, wanted.target)])
    [patch] = editors.edit_each(model, "nudge", [wanted], layer=1, rate=0.01)
    before = model.target_nll(model.states(batch), batch).mean()
    weight = model.submodule(model.down_path(1)).weight
    with torch.enable_grad():
        weight.requires_grad_(True)
        loss = model.target_nll(model.states(batch), batch).mean()
        (slope,) = torch.autograd.grad(loss, weight)
        weight.requires_grad_(False)
    [term] = patch.terms
    torch.testing.assert_close(term.a @ term.b.T, -0.01 * slope, atol=1e-6, rtol=1e-4)
    with overlay(model, patch):
        assert model.target_nll(model.states(batch), batch).mean() < before


def test_the_front_doors_example_edits_one_row_and_not_the_other(tmp_path, monkeypatch, capsys):
    [example] = blocks(README, "python")
    (tmp_path / "evaluators").symlink_to(ROOT / "evaluators")
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert capsys.readouterr().out.strip() == "tensor([ True, False])"


def test_the_front_doors_campaign_is_one(tmp_path):
    [example] = blocks(README, "yaml")
    (tmp_path / "study.yaml").write_text(example)
    planned = plan(load_campaign(tmp_path / "study.yaml"))
    assert {task.kind for task in planned.tasks.values()} >= {"baseline", "score", "stream"}
    assert yaml.safe_load(example)["name"] == "my-study"


def test_the_pages_name_every_command():
    told = (ROOT / "jobs" / "README.md").read_text(encoding="utf-8")
    for name in cli.COMMANDS:
        assert f"editfleet {name}" in README and f"| `{name}" in told


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]), ids=lambda path: str(
    path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        place = page.parent / target if target else page
        assert place.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in heads}, anchor
