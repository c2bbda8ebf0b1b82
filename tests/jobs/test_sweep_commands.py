"""Sweeps, settings, includes and tags as the commands take and show them."""

from __future__ import annotations

import json
from itertools import product

import pytest
import yaml
from support.campaigns import FT
from support.refusals import refused

from cluster.store.store import Store
from jobs.console import CAMPAIGNS, plan_campaign

SWEEP = {"editors.ft.lr": [0.01, 0.1], "editors.ft.steps": [1, 2]}


def test_a_sweep_runs_and_its_record_tells_what_was_swept(invoke, write_campaign, tmp_path):
    path = write_campaign(editors=["identity", {"name": "ft", "config": FT}], sweep=SWEEP,
                          tags={"study": "rates", "who": "anna"})
    assert invoke("run", path, "--out", tmp_path / "store").exit_code == 0
    store = Store.open(tmp_path / "store")
    [record] = store.campaigns()
    names = [f"ft lr={lr} steps={steps}" for lr, steps in product(*SWEEP.values())]
    assert [tuple(entry.model_dump().values()) for entry in record.sweep] == [
        ("editors", name, "ft", {"lr": lr, "steps": steps})
        for name, (lr, steps) in zip(names, product(*SWEEP.values()), strict=True)]
    assert set(store.rows(record.tasks)["editor"].to_pylist()) == {"identity", *names}
    assert "tags: study: rates, who: anna" in invoke("status", tmp_path / "store").stdout


def test_new_tags_stand_in_the_place_of_the_old_without_new_tasks(invoke, write_campaign, tmp_path):
    path = write_campaign(editors=["identity"])
    for who in ("anna", "ben"):
        assert invoke("run", path, "--out", tmp_path / "store", "--set", f"tags.who={who}").exit_code == 0
    [record] = Store.open(tmp_path / "store").campaigns()
    assert record.tags == {"who": "ben"}


def test_set_changes_what_run_plan_and_train_do(invoke, write_campaign, tmp_path, drilled):
    path = write_campaign(editors=["drilled"], training={"limit": 3})
    assert invoke("run", path, "--out", tmp_path / "one", "--set", "datasets.testbed-cloze.limit=2",
                  "--set", "chunk=1").exit_code == 0
    [record] = Store.open(tmp_path / "one").campaigns()
    assert [task.kind for task in record.tasks].count("score") == 2 and record.datasets[0].cases == 2
    planned = invoke("plan", path, "--set", "seeds=[0, 1, 2]").stdout
    assert [int(word) for line in planned.splitlines() if "score" in line for word in line.split() if word.isdigit()] \
        == [6, 12]
    assert invoke("train", path, "--out", tmp_path / "trained", "--set", "seeds=[5, 6]").exit_code == 0
    assert len(list((tmp_path / "trained").glob("*.safetensors"))) == 2


def test_a_shipped_campaign_is_included_by_name(tmp_path):
    (tmp_path / "mine.yaml").write_text("include: ft-rates\nname: mine\nsweep: {editors.ft.steps: [1, 2]}\n")
    planned = plan_campaign(str(tmp_path / "mine.yaml"), None, None)
    assert [editor.title for editor in planned.campaign.editors] == ["identity", "ft steps=1", "ft steps=2"]


def test_the_shipped_sweep_is_what_was_written_out_before(tmp_path):
    rates = yaml.safe_load((CAMPAIGNS / "ft-rates.yaml").read_text())
    written = {**rates, "editors": ["identity", *(
        {"name": "ft", "label": f"ft lr={rate}", "config": {"lr": rate}} for rate in (1e-4, 5e-4, 2e-3, 1e-2))]}
    del written["sweep"]
    (tmp_path / "by-hand.yaml").write_text(json.dumps(written))
    assert list(plan_campaign(str(tmp_path / "by-hand.yaml"), None, None).tasks) == list(
        plan_campaign("ft-rates", None, None).tasks)


@pytest.mark.parametrize(("command", "setting", "parts"), [
    ("plan", "editors.ft.lr=fast", ["--set editors.ft.lr=fast: ", "valid number"]),
    ("plan", "editors.ftt.lr=1", ["--set editors.ftt.lr=1: ", "Did you mean 'ft'?"]),
    ("run", "chunk", ["--set chunk: expected ADDRESS=VALUE"]),
    ("run", "chunk=0", ["--set chunk=0: ", "greater than 0"]),
    ("run", "tags.key=https://me:hidden@host/", ["tag 'key'", "***@host", "cannot be one"]),
    ("run", "tags={a: \"x\\ny\"}", ["tag 'a'", "one line"]),
    ("run", "tags={'': x}", ["--set tags="]),
    ("run", f"tags.a={'x' * 300}", ["tag 'a'", "at most 200 characters"]),
    ("run", f"tags={{{', '.join(f'k{number}: x' for number in range(51))}}}", ["--set tags=", "at most 50"]),
])
def test_settings_that_are_wrong_are_refused(write_campaign, tmp_path, command, setting, parts):
    told = refused([command, write_campaign(), "--set", setting,
                    *(["--out", tmp_path / "store"] if command == "run" else [])], parts)
    assert "hidden" not in told
