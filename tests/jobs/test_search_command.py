"""`editfleet search` on a tiny model: what it proposes, that it goes on from the store alone, and what it refuses."""

from __future__ import annotations

import json
import sys

import pytest
from support.campaigns import FT

from cluster.store.store import Store

pytest.importorskip("optuna", reason="needs optuna")

SEARCH = {"editor": "ft", "over": {"lr": {"low": 1e-3, "high": 1.0, "log": True}, "layers": [[1], [2]]},
          "trials": 5, "parallel": 2, "validation": {"limit": 3}, "objective": "reliability.token"}


@pytest.fixture
def search(invoke, write_campaign, tmp_path):
    """Runs the command on the small campaign, with fields of its search and of the campaign changed."""

    def run(changes=None, **fields):
        editors = ["identity", {"name": "ft", "config": FT}]
        path = write_campaign(**{"editors": editors, "search": {**SEARCH, **(changes or {})}, **fields})
        return invoke("search", path, "--out", tmp_path / "store")

    return run


def trials_of(store):
    """The labels of the last campaign of trials."""
    record = next(record for record in store.campaigns() if record.name == "small (search)")
    return [title.partition(" on tiny")[0] for task in record.tasks if (title := task.title).startswith("ft ")]


def test_a_search_ends_with_the_campaign_and_the_best_beside_the_preset(search, tmp_path):
    result = search()
    assert result.exit_code == 0, result.output
    told = " ".join(result.stdout.split())
    store = Store.open(tmp_path / "store")
    assert store.campaigns()[0].name == "small" and len(set(trials_of(store))) == 5
    rows = store.rows(store.campaigns()[0].tasks)
    assert set(rows["editor"].to_pylist()) == {"identity", "ft", "ft (found)"}
    best = told.partition("Best of 5 trials: ")[2].split(" On ")[0]
    assert best in trials_of(store)
    scores = {}  # of each trial: a plain mean over its rows
    trials = next(record for record in store.campaigns() if record.name == "small (search)")
    for row in store.rows(trials.tasks).to_pylist():
        if row["metric"] == "reliability.token":
            scores.setdefault(row["editor"], []).append(row["value"])
    means = {editor: sum(values) / len(values) for editor, values in scores.items()}
    assert all(len(values) == 3 for values in scores.values()) and means[best] == max(means.values())
    assert "ft (found)" in told and "over the 4 cases that both have" in told


def test_all_trials_are_a_sweep_in_a_report(search, invoke, tmp_path):
    assert search().exit_code == 0
    shown = invoke("report", tmp_path / "store", "--campaign", "small (search)", "--format", "markdown").stdout
    rows = [line for line in shown.partition("ft by layers and lr")[2].splitlines() if line.startswith("|")]
    assert rows[0].startswith("| layers | lr | cases | reliability.exact") and len(rows) == 2 + 5


def test_it_goes_on_from_the_store_alone(search, local_pool, tmp_path):
    """Three trials, then five: the first three are found, as they are where five are tried at once."""
    assert search({"trials": 2}).exit_code == 0
    first = trials_of(Store.open(tmp_path / "store"))
    pools = len(local_pool.pools)
    assert search().exit_code == 0
    ran = {task for pool in local_pool.pools[pools:] for task in pool.ran}
    record = next(each for each in Store.open(tmp_path / "store").campaigns() if each.name == "small (search)")
    assert trials_of(Store.open(tmp_path / "store"))[:len(first)] == first
    again = {task.id for task in record.tasks if task.title.startswith(tuple(first))}
    assert again and not again & ran
    pools = len(local_pool.pools)
    last = search()
    assert last.exit_code == 0 and len(local_pool.pools) == pools  # nothing is left to do


def test_no_trial_sees_a_case_or_a_subject_of_the_campaign(search, tmp_path):
    assert search().exit_code == 0
    store = Store.open(tmp_path / "store")
    judged, tried = ({(row["case_id"], row["subject"]) for row in store.rows(next(
        record for record in store.campaigns() if record.name == name).tasks).to_pylist()}
        for name in ("small", "small (search)"))
    assert len(judged) == 4 and len(tried) == 3
    for place in (0, 1):
        assert not {pair[place] for pair in judged} & {pair[place] for pair in tried}


def test_failed_trials_are_listed_and_the_others_go_on(search, monkeypatch):
    from editors.ft import FineTuning

    plain = FineTuning.edit_each

    def edit_each(self, requests):
        if self.config.layers == (2,):
            raise RuntimeError("no such luck")
        return plain(self, requests)

    monkeypatch.setattr(FineTuning, "edit_each", edit_each)
    result = search({"over": {"layers": [[1], [2]], "steps": {"low": 1, "high": 9}}})
    told = " ".join(result.stdout.split())
    assert "trials failed:" in told and "layers=[2]" in told.partition("trials failed:")[2]
    assert "no such luck" in told and "Best of 5 trials: ft layers=[1]" in told and result.exit_code == 0
    nothing = search({"over": {"layers": [[2]]}, "trials": 1})
    assert nothing.exit_code == 1 and "Every trial failed" in nothing.stderr


@pytest.mark.parametrize(("changes", "told"), [
    ({"over": {"lrr": [1]}}, ["search.over.lrr", "unknown setting of ft", "Did you mean 'lr'?"]),
    ({"over": {"steps": {"low": 1.5, "high": 9}}}, ["search.over.steps", "it is an integer, and 1.5 is none"]),
    ({"over": {"bias": {"low": 0, "high": 1}}}, ["search.over.bias", "no number", "a list of choices"]),
    ({"over": {"layers": {"low": 0, "high": 1}}}, ["search.over.layers", "no number"]),
    ({"over": {"lr": []}}, ["search.over.lr", "at least 1"]),
    ({"over": {"lr": [0.1, 0.1]}}, ["search.over.lr", "'0.1' is listed twice"]),
    ({"over": {}}, ["search.over", "at least 1"]),
    ({"over": {"lr": 3}}, ["search.over.lr", "a list of choices, or a range with 'low' and 'high'"]),
    ({"over": {"lr": {"low": 1, "high": 0.5}}}, ["'low: 1' is not below 'high: 0.5'"]),
    ({"over": {"lr": {"low": 0, "high": 0.5, "log": True}}}, ["has no logarithm"]),
    ({"over": {"lr": {"low": -1, "high": 0.5}}}, ["search.over.lr", "greater than 0"]),
    ({"over": {"layers": [[1], [7]]}}, ["search.over.layers", "layer 7 does not exist"]),
    ({"editor": "rome"}, ["search.editor", "unknown editor of this campaign 'rome'"]),
    ({"objective": "reliabilty.exact"}, ["search.objective", "Did you mean 'reliability.exact'?"]),
    ({"objective": ["reliability.exact", "edit.diverged"]}, ["search.objective", "'edit.diverged'"]),
    ({"validation": {"limit": 100_000}}, ["datasets[0]", "100000 are wanted", "lower 'validation"]),
])
def test_wrong_searches_are_refused_with_the_place_and_the_cure(search, changes, told):
    result = search(changes)
    assert result.exit_code == 2, result.output
    assert [part for part in ["small.yaml, line ", *told] if part not in result.stderr] == []


def test_a_campaign_without_a_search_and_optuna_that_is_not_installed(search, monkeypatch):
    result = search(search=None)
    assert result.exit_code == 2 and "has no search: add 'search'" in result.stderr
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = search()
    assert result.exit_code == 2 and "pip install 'editfleet[search]'" in result.stderr


def test_run_takes_no_notice_of_a_search(invoke, write_campaign, tmp_path):
    with_search = invoke("plan", write_campaign(search=SEARCH))
    assert with_search.exit_code == 0 and with_search.stdout == invoke("plan", write_campaign()).stdout
    assert json.dumps(SEARCH) not in with_search.stdout
