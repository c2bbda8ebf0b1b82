"""Whole campaigns in this process: what runs, what is kept, what fails."""

from __future__ import annotations

import shutil
import sys
from itertools import pairwise
from types import ModuleType

import pytest
from support.campaigns import ROME
from support.tokenizers import sentencepiece
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

import editors
from cluster.driver import run_campaign
from cluster.store.store import Store
from cluster.workers.executor import TaskExecutor
from editors.core.editor import Editor
from editors.core.patches.patch import Patch
from evaluators.metering.spent import PHASES
from evaluators.report.tables import summarise
from evaluators.scoring.metrics import METRICS


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


@pytest.fixture
def broken_editor(monkeypatch):
    """Registers an editor named `broken`; returns a list of what it should raise, one item per call, else it works."""
    troubles = []

    class Broken(Editor):
        name = "broken"
        version = 1

        def edit_each(self, requests):
            if troubles:
                raise troubles.pop(0)
            return [Patch() for _ in requests]

    module = ModuleType("broken_editor")
    module.Broken = Broken
    monkeypatch.setitem(sys.modules, "broken_editor", module)
    monkeypatch.setitem(editors.EDITORS, "broken", "broken_editor:Broken")
    return troubles


def kinds(planned, ran):
    return sorted(planned.tasks[task].title.split(":")[0] for task in ran)


def test_a_campaign_leaves_its_rows_and_how_they_came_about(make_plan, store, local_pool):
    planned = make_plan()
    seen = []
    outcome = run_campaign(planned, store, local_pool(store), seen.append)
    assert (outcome.done, outcome.failed, outcome.edits_done) == (9, 0, 12)
    assert seen[0].done == 0 and seen[-1] == outcome
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)

    [record] = store.campaigns()
    rows = store.rows(record.tasks)
    assert set(rows["editor"].to_pylist()) == {"identity", "ft", "rome"}
    assert set(rows["case_id"].to_pylist()) == {case.id for data in planned.datasets for case in data.cases}
    assert set(rows["metric"].to_pylist()) <= set(METRICS) and "edit.diverged" in rows["metric"].to_pylist()
    keys = zip(*(rows[name].to_pylist() for name in ("editor", "case_id", "metric")), strict=True)
    assert len(set(keys)) == len(rows)
    assert {row.n for row in summarise(rows) if row.metric == "reliability.exact"} == {4}

    score = next(task for task in planned.tasks.values() if task.title.startswith("rome"))
    provenance = store.provenance(score.key)
    assert provenance["task"] == score.id and provenance["model"]["digest"] == score.model.digest
    assert provenance["identity"]["editor"]["config"]["steps"] == 2
    assert provenance["statistics"]["tokens"] == 500
    assert set(store.rows([score.record()])["settings"].to_pylist()) == {score.settings} == {provenance["settings"]}
    assert provenance["prompts_begin_with"] == []
    assert provenance["versions"].keys() >= {"torch", "transformers", "python"}
    assert min(provenance[cost] for cost in ("seconds_edit", "seconds_score")) > 0
    phases = provenance["phases"]
    assert {"edit", "score", "store"} <= phases.keys() <= set(PHASES)
    assert phases["edit"]["seconds"] == provenance["seconds_edit"] and phases["edit"]["tokens"] > 0
    assert phases["score"]["memory"]["rss"] > 100 * 2**20 and "joules" not in phases["score"]
    exact = [row["value"] for row in store.rows([score.record()]).to_pylist() if row["metric"] == "reliability.exact"]
    assert provenance["scored"]["reliability.exact"] == [sum(exact), len(exact)]
    assert provenance["diverged"] == 0 and provenance["probes"] >= 4 * 3
    assert provenance["failed"] == []


def test_the_unedited_model_changes_nothing(make_plan, store, local_pool):
    run_campaign(make_plan(editors=["identity"]), store, local_pool(store))
    means = {row.metric: row.mean for row in summarise(store.rows(store.campaigns()[0].tasks))}
    assert means["locality.token"] == means["locality.unrelated.exact"] == 1 and means["edit.diverged"] == 0


def test_running_again_does_nothing_and_asks_for_no_workers(make_plan, store, local_pool):
    planned = make_plan()
    first = run_campaign(planned, store, local_pool(store))
    assert run_campaign(make_plan(), store, local_pool(store)) == first
    assert len(local_pool.pools) == 1


def test_only_what_is_missing_or_damaged_is_done(make_plan, store, local_pool):
    planned = make_plan()
    run_campaign(planned, store, local_pool(store))
    rows = store.rows(store.campaigns()[0].tasks)
    scores = [task for task in planned.tasks.values() if task.kind == "score"]
    store.local(scores[0].key).unlink()
    store.local(scores[-1].key).write_bytes(b"PAR1 damaged PAR1")
    run_campaign(planned, store, local_pool(store))
    assert sorted(local_pool.pools[1].ran) == sorted([scores[0].id, scores[-1].id])
    assert store.rows(store.campaigns()[0].tasks).equals(rows)


def test_a_campaign_whose_rows_are_all_there_has_nothing_to_do(make_plan, store, local_pool):
    planned = make_plan()
    first = run_campaign(planned, store, local_pool(store))
    for task in planned.tasks.values():
        if task.kind != "score":
            store.remove(task.key)
    assert store.standing(store.campaigns()[0]).done == set(planned.tasks)
    assert run_campaign(planned, store, local_pool(store)) == first and len(local_pool.pools) == 1
    scores = [task for task in planned.tasks.values() if task.kind == "score"]
    store.remove(scores[0].key)
    assert run_campaign(planned, store, local_pool(store)) == first
    assert local_pool.pools[1].ran == [*scores[0].needs, scores[0].id]


def test_leftovers_go_even_where_there_is_nothing_to_do(make_plan, store, local_pool):
    planned = make_plan(editors=[{"name": "rome", "config": ROME}], statistics={"tokens": 500, "shard": 250})
    run_campaign(planned, store, local_pool(store))
    [shard, _] = [task for task in planned.tasks.values() if task.temporary]
    TaskExecutor(store).run(shard)
    assert store.has(shard.key)
    run_campaign(planned, store, local_pool(store))
    assert not store.has(shard.key) and len(local_pool.pools) == 1


def test_an_amended_campaign_only_adds(make_plan, store, local_pool):
    run_campaign(make_plan(editors=["identity"]), store, local_pool(store))
    planned = make_plan(datasets=[{"name": "testbed-cloze", "limit": 6}])
    run_campaign(planned, store, local_pool(store))
    assert kinds(planned, local_pool.pools[1].ran) == [
        "baseline of tiny", "ft on tiny", "ft on tiny", "ft on tiny", "identity on tiny", "rome on tiny",
        "rome on tiny", "rome on tiny", "second moments of tiny"]


def test_rows_do_not_depend_on_the_workers_or_the_order(make_plan, tmp_path, local_pool):
    tables = []
    for number, size in enumerate((1, 3)):
        store = Store.create(tmp_path / f"store{number}")
        run_campaign(make_plan(), store, local_pool(store, size))
        tables.append(store.rows(store.campaigns()[0].tasks))
    assert tables[0].equals(tables[1])


def test_a_failing_editor_is_given_up_and_the_rest_is_done(make_plan, store, local_pool, broken_editor):
    broken_editor += [RuntimeError("no such weights")] * 100
    planned = make_plan(editors=["broken", "identity"])
    outcome = run_campaign(planned, store, local_pool(store))
    assert (outcome.done, outcome.failed) == (4, 2)
    [record] = store.campaigns()
    failures = store.standing(record).failures
    assert {failure.summary for failure in failures} == {"RuntimeError: no such weights"}
    assert {failure.title for failure in failures} == {"broken on tiny: testbed-cloze, cases 1-2",
                                                       "broken on tiny: testbed-cloze, cases 3-4"}
    assert set(store.rows(record.tasks)["editor"].to_pylist()) == {"identity"}

    broken_editor.clear()
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    assert store.standing(record).failures == ()
    assert kinds(planned, local_pool.pools[1].ran) == ["broken on tiny"] * 2


@pytest.mark.parametrize("errors", [1, 3])
def test_a_campaign_says_how_often_a_task_is_tried(make_plan, store, local_pool, broken_editor, errors):
    broken_editor += [RuntimeError("no such weights")] * 100
    planned = make_plan(editors=["broken"], retries={"max_task_errors": errors})
    assert run_campaign(planned, store, local_pool(store)).failed == 2
    assert kinds(planned, local_pool.pools[0].ran).count("broken on tiny") == 2 * errors


def test_a_case_that_cannot_be_edited_is_named_and_the_rest_is_done(make_plan, store, local_pool, broken_editor):
    broken_editor += [ValueError("both at once"), ValueError("the first alone")]
    assert run_campaign(make_plan(editors=["broken"]), store, local_pool(store)).failed == 0
    [record] = store.campaigns()
    [failed] = store.failed_cases(record.tasks)
    assert "the first alone" in failed.reason
    assert len(set(store.rows(record.tasks)["case_id"].to_pylist())) == 3


def test_a_failure_that_passes_is_not_a_failure(make_plan, store, local_pool, broken_editor):
    broken_editor += [ValueError("disk full")] * 3  # both cases of the first task, at once and one by one
    outcome = run_campaign(make_plan(editors=["broken"]), store, local_pool(store))
    assert outcome.failed == 0 and outcome.done == 4


def test_what_a_tokenizer_puts_before_prompts_is_told(make_plan, store, local_pool, tiny_folder, tmp_path):
    begun = tmp_path / "begun"
    shutil.copytree(tiny_folder, begun)
    tokenizer = AutoTokenizer.from_pretrained(begun)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.eos_token_id)])
    tokenizer.save_pretrained(begun)
    planned = make_plan(models=[{"name": "tiny", "path": str(begun)}], editors=["identity"])
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    score = next(task for task in planned.tasks.values() if task.title.startswith("identity"))
    assert store.provenance(score.key)["prompts_begin_with"] == ["<|endoftext|>"]


def test_second_moments_are_taken_over_what_a_model_can_read(make_plan, store, local_pool, tiny_folder, tmp_path):
    """Its cases can be edited; of the text, each letter would be the same unknown token."""
    lettered = shutil.copytree(tiny_folder, tmp_path / "lettered")
    sentencepiece().save_pretrained(lettered)
    (tmp_path / "text.txt").write_text("東京は日本の首都\n" * 40, encoding="utf-8")
    planned = make_plan(models=[{"name": "lettered", "path": str(lettered)}],
                        editors=["identity", {"name": "rome", "config": ROME}],
                        statistics={"corpus": str(tmp_path / "text.txt"), "tokens": 100})
    outcome = run_campaign(planned, store, local_pool(store))
    [record] = store.campaigns()
    [failure, *_] = store.standing(record).failures
    assert outcome.failed and "text.txt': most letters of its texts are" in failure.summary
    assert {row["editor"] for row in store.rows(record.tasks).to_pylist()} == {"identity"}


def test_a_model_that_changed_since_it_was_planned_fails(make_plan, store, local_pool, tiny_folder, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(tiny_folder, changed)
    planned = make_plan(models=[{"name": "tiny", "path": str(changed)}])
    (changed / "generation_config.json").write_text("{}")
    outcome = run_campaign(planned, store, local_pool(store))
    assert outcome.failed == 9 and not outcome.abandoned, "all were tried"
    failures = store.standing(store.campaigns()[0]).failures
    assert any("has changed since the campaign was planned" in failure.summary for failure in failures)
    assert any("which was given up" in failure.summary for failure in failures)


def test_two_models_take_turns_in_one_worker(make_plan, store, local_pool, tiny_folder):
    planned = make_plan(models=[{"name": "a", "path": str(tiny_folder)},
                                {"name": "b", "path": str(tiny_folder), "dtype": "bfloat16"}], editors=["identity"])
    run_campaign(planned, store, local_pool(store))
    held = [planned.tasks[task].model.key for task in local_pool.pools[0].ran]
    assert len(held) == 8 and sum(a != b for a, b in pairwise(held)) == 1
