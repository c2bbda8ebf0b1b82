"""Campaigns that are kept to what models know: asked first, then planned and run with these cases."""

from __future__ import annotations

import json

import pytest
from support.campaigns import LocalPool
from support.plain_recall import greedy_and_rank

from cluster.campaign.file import load_campaign
from cluster.plan.known import Knowledge
from cluster.plan.planner import plan
from cluster.store.store import Store
from cluster.workers import executor
from cluster.workers.executor import TaskExecutor
from evaluators.scoring.known import Criterion
from evaluators.testbed.cases import testbed_cases as cases_of  # a name that pytest does not collect

EXAMINED, TOP = 12, 300  # of the first cases, random models know about a third among the 300 most probable of 1,024


@pytest.fixture
def models(tiny_gptj, tiny_t5, tiny_folder, tmp_path_factory):
    """A GPT-J and a T5, as campaigns name them, and as they are."""
    folder = tmp_path_factory.mktemp("t5")
    tiny_t5.module.save_pretrained(folder)
    tiny_t5.tokenizer.save_pretrained(folder)
    return ([{"name": "tiny", "path": str(tiny_folder)}, {"name": "tiny-t5", "path": str(folder)}],
            {"tiny": tiny_gptj, "tiny-t5": tiny_t5})


@pytest.fixture
def campaign(write_campaign, models):
    """Writes a campaign of `identity` on both models, kept to what they know of the first cases."""
    def write(data=None, **changes):
        entry = {"name": "testbed-questions", "known": f"top{TOP}", "examine": EXAMINED, **(data or {})}
        return write_campaign(**{"models": models[0], "datasets": [entry], "editors": ["identity"], **changes})
    return write


@pytest.fixture
def small_tasks(monkeypatch):
    monkeypatch.setattr("cluster.plan.known.CHUNK", 5)


def known_by(model, top=TOP, count=EXAMINED):
    """Ids of the cases that a model knows, by a plain loop."""
    return [case.id for case in cases_of("question", "eval", count)
            if greedy_and_rank(model.module, model.tokenizer, case.prompt, case.target_true)[1] < top]


def scored(store):
    """Ids of the scored cases by model, in order, of the campaign run last."""
    found = {}
    for row in store.rows(store.campaigns()[0].tasks).to_pylist():
        found.setdefault(row["model"], {})[row["case_id"]] = row["task"]
    return {name: list(cases) for name, cases in found.items()}


def ran(local_pool, since=0):
    return [task for pool in local_pool.pools[since:] for task in pool.ran]


def test_every_model_is_judged_on_the_cases_that_it_knows(invoke, campaign, models, local_pool, tmp_path):
    path, out = campaign(), tmp_path / "store"
    expected = {name: known_by(model) for name, model in models[1].items()}
    assert 0 < len(expected["tiny"]) < EXAMINED and expected["tiny"] != expected["tiny-t5"] != []

    before = invoke("plan", path, "--out", out)
    assert before.exit_code == 0 and "At most " in before.stdout
    assert f"known: not found out yet for {EXAMINED} cases of testbed-questions by tiny (top{TOP})" in before.stdout

    result = invoke("run", path, "--out", out)
    assert result.exit_code == 0, result.output
    store = Store.open(out)
    assert scored(store) == expected
    told = [f"known: {len(cases)} of {EXAMINED} cases of testbed-questions by {name} (top{TOP})"
            for name, cases in expected.items()]
    status, report = invoke("status", out), invoke("report", out, "--format", "json")
    assert [line for line in told if line not in result.stdout or line not in status.stdout
            or line not in report.stderr] == []
    assert [record.name for record in store.campaigns()] == ["small"]
    assert {row["n"] for row in map(json.loads, report.stdout.splitlines()) if row["metric"] == "reliability.token"} \
        == {len(cases) for cases in expected.values()}
    (task,) = (task for task in store.campaigns()[0].tasks if task.title.startswith("identity on tiny: ")
               and task.title.endswith("cases 1-2"))
    assert store.provenance(task.key)["data"]["known"] == {
        "model": "tiny", "dataset": "testbed-questions", "by": f"top{TOP}", "examined": EXAMINED,
        "known": len(expected["tiny"]), "kept": len(expected["tiny"]), "untold": 0, "missing": 0}

    after, pools = invoke("plan", path, "--out", out), len(local_pool.pools)
    assert "At most" not in after.stdout and "All tasks are done." in after.stdout and told[0] in after.stdout
    assert invoke("run", path, "--out", out).exit_code == 0 and len(local_pool.pools) == pools


def test_other_campaigns_of_a_store_ask_nothing_anew(invoke, campaign, models, local_pool, tmp_path):
    """By another criterion, with a limit of known cases, and under another name; what is asked is the same."""
    model = models[1]["tiny"]
    two = {"models": models[0][:1], "protocols": ["single", {"name": "batch", "sizes": [2]}]}
    assert invoke("run", campaign(**two), "--out", tmp_path / "store").exit_code == 0
    asked = {task.id for task in Store.open(tmp_path / "store").campaigns()[0].tasks if task.kind == "known"}
    pools = len(local_pool.pools)
    entry = {"known": "top600", "limit": 2, "name": "again", "built_in": "testbed-questions"}
    result = invoke("run", campaign(entry, **two), "--out", tmp_path / "store")
    known = known_by(model, 600)
    assert result.exit_code == 0 and len(known) > 2
    assert scored(Store.open(tmp_path / "store")) == {"tiny": known[:2]}
    assert f"known: {len(known)} of {EXAMINED} cases of again by tiny (top600); the first 2 are taken" in result.stdout
    again = {task.id for task in Store.open(tmp_path / "store").campaigns()[0].tasks if task.kind == "known"}
    assert again == asked and not again & set(ran(local_pool, pools))


def test_sweeps_and_repeats_are_made_of_the_same_answers(invoke, campaign, models, tmp_path):
    path = campaign(models=models[0][:1], seeds=[0, 1], editors=["identity"],
                    sweep={"datasets.testbed-questions.known": ["top100", "top600", "exact"]})
    result = invoke("run", path, "--out", tmp_path / "store")
    known = {top: len(known_by(models[1]["tiny"], top)) for top in (100, 600)}
    for top, count in known.items():
        assert f"known: {count} of {EXAMINED} cases of testbed-questions known=top{top} by tiny" in result.stdout
    assert "(exact); so the data set is left out for this model" in result.stdout and result.exit_code == 0
    record = Store.open(tmp_path / "store").campaigns()[0]
    assert len([task for task in record.tasks if task.kind == "known"]) == 1


def test_it_goes_on_where_the_driver_was_killed(invoke, campaign, models, local_pool, small_tasks, monkeypatch,
                                               tmp_path):
    plain = LocalPool.wait

    def wait(self, seconds):
        if len(self.ran) == 2:
            raise KeyboardInterrupt
        return plain(self, seconds)

    monkeypatch.setattr(LocalPool, "wait", wait)
    path = campaign(models=models[0][:1])
    assert invoke("run", path, "--out", tmp_path / "store").exit_code == 130
    half = invoke("status", tmp_path / "store").stdout
    assert "small (known)" in half and "2 of 3 tasks done" in half and "known: not found out yet" in half
    planned = invoke("plan", path, "--out", tmp_path / "store").stdout
    assert "At most" in planned and "known: not found out yet" in planned
    monkeypatch.setattr(LocalPool, "wait", plain)
    assert invoke("run", path, "--out", tmp_path / "store").exit_code == 0
    assert scored(Store.open(tmp_path / "store")) == {"tiny": known_by(models[1]["tiny"])}
    once = ran(local_pool)
    assert len(once) == len(set(once))
    assert "small (known)" not in invoke("status", tmp_path / "store").stdout


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: data[:40] + b"?" + data[41:]],
                         ids=["cut short", "changed"])
def test_damaged_answers_are_asked_for_again(invoke, campaign, models, local_pool, damage, tmp_path):
    path, out = campaign(models=models[0][:1]), tmp_path / "store"
    assert invoke("run", path, "--out", out).exit_code == 0
    before, pools = scored(Store.open(out)), len(local_pool.pools)
    (task,) = (task for task in Store.open(out).campaigns()[0].tasks if task.kind == "known")
    file = out / "baselines" / f"{task.id}.parquet"
    file.write_bytes(damage(file.read_bytes()))
    assert invoke("run", path, "--out", out).exit_code == 0
    assert ran(local_pool, pools) == [task.id] and scored(Store.open(out)) == before
    assert list((out / "damaged").iterdir())


def test_where_asking_fails_the_others_go_on(invoke, campaign, models, monkeypatch, tmp_path):
    plain, out = executor.recall, tmp_path / "store"

    def recall(model, cases):
        if model.has_encoder:
            raise RuntimeError("no such luck")
        return plain(model, cases)

    monkeypatch.setattr(executor, "recall", recall)
    result = invoke("run", campaign(), "--out", out)
    assert result.exit_code == 1, result.output
    assert "known: could not be found out for" in result.stdout and "no such luck" in result.stdout
    assert scored(Store.open(out)) == {"tiny": known_by(models[1]["tiny"])}
    assert "no such luck" in invoke("status", out).stdout
    assert invoke("run", campaign(), "--out", out, "--tolerate-failed-tasks").exit_code == 0
    monkeypatch.setattr(executor, "recall", plain)
    result = invoke("run", campaign(), "--out", out)
    assert result.exit_code == 0 and "no such luck" not in result.output + invoke("status", out).stdout
    assert set(scored(Store.open(out))) == {"tiny", "tiny-t5"}


def test_cases_without_an_answer_and_those_that_cannot_be_asked_are_counted(invoke, campaign, models, tmp_path):
    edits = [{"prompt": "Ann Lee plays the", "subject": "Ann Lee", "target_new": "harp", "target_true": "lute"},
             {"prompt": "Bo Ray plays the", "subject": "Bo Ray", "target_new": "harp"},
             {"prompt": "Cy Poe plays the", "subject": "Cy Poe", "target_new": "harp", "target_true": "harp"}]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(edits))
    entry = {"name": "mine", "path": str(file), "known": "top1000", "examine": 9}
    result = invoke("run", campaign(models=models[0][:1], datasets=[entry]), "--out", tmp_path / "store")
    assert result.exit_code == 0, result.output
    assert ("known: 1 of 3 cases of mine by tiny (top1000); 1 have no true answer; 1 could not be asked:"
            in result.stdout)
    assert "same tokens" in result.stdout
    file.write_text(json.dumps(edits[1:2]))
    result = invoke("run", campaign(models=models[0][:1], datasets=[entry]), "--out", tmp_path / "store")
    assert result.exit_code == 2 and "tells no true answer of any of its 1 cases" in result.stderr


@pytest.mark.parametrize(("data", "changes", "told"), [
    ({"known": "top0"}, {}, ["datasets[0].known", "'top0' says nothing", "such as 'top10'"]),
    ({"known": "top1001"}, {}, ["N from 1 to 1000"]),
    ({"known": 10}, {}, ["10 says nothing of what is known"]),
    ({"known": True}, {}, ["write 'exact'"]),
    ({"known": None}, {}, ["'examine: 12' is for data sets with 'known'"]),
    ({"limit": 13}, {}, ["'examine: 12' records cannot have 'limit: 13' known cases"]),
    ({"known": "top100"}, {"protocols": [{"name": "batch", "sizes": [5]}]}, ["that tiny knows", "raise its examine"]),
])
def test_what_cannot_be_is_refused_with_the_place_and_the_cure(invoke, campaign, models, data, changes, told, tmp_path):
    result = invoke("run", campaign(data, models=models[0][:1], **changes), "--out", tmp_path / "store")
    assert result.exit_code == 2, result.output
    assert [part for part in ["small.yaml, line ", *told] if part not in result.stderr] == []


def test_a_search_is_not_judged_by_what_is_known(invoke, campaign, models, tmp_path):
    path = campaign(models=models[0][:1], editors=["ft"], search={"editor": "ft", "over": {"lr": [0.1, 0.2]}})
    result = invoke("search", path, "--out", tmp_path / "store")
    assert result.exit_code == 2 and "leave 'known: top300' out of it" in result.stderr


@pytest.fixture
def asked(campaign, models, tmp_path):
    """The plan of a campaign on one model, and a store in which it was asked what it knows, in so many parts."""
    def ask(parts=1):
        planned = plan(load_campaign(campaign(models=models[0][:1])))
        store = Store.create(tmp_path / f"in {parts}")
        for task in planned.examination.tasks.values():
            TaskExecutor(store).run(task, parts)
        return planned, store
    return ask


def test_parts_of_a_task_make_the_same_answers(asked):
    tables = []
    for parts in (1, 5):
        planned, store = asked(parts)
        (task,) = planned.examination.tasks.values()
        tables.append(store.read_table(task.key))
    assert tables[0].equals(tables[1]) and tables[0].num_rows == EXAMINED


def test_tasks_are_those_of_a_campaign_of_the_same_cases(asked, campaign, models, monkeypatch):
    """The filter is no part of what is done with the cases that it leaves."""
    monkeypatch.setattr(Criterion, "holds", lambda self, recall: True)
    planned, store = asked()
    filtered = planned.settled(Knowledge(store))
    plain = plan(load_campaign(campaign({"known": None, "examine": None, "limit": EXAMINED}, models=models[0][:1])))
    assert planned.is_open and not filtered.is_open and not plain.known
    assert set(filtered.tasks) - set(filtered.examination.tasks) == set(plain.tasks)
    assert planned.tasks.keys() == filtered.tasks.keys()  # the bound is as if all were known
    assert Knowledge(store).of(list(filtered.examination.tasks.values())).keys() == filtered.examination.tasks.keys()
