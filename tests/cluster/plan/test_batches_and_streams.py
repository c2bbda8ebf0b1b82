"""Campaigns with batches, streams and methods that are trained: their tasks, and that these compute what
the protocols say."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.campaigns import FT, ROME, register
from support.protocols import batch, sequential

from cluster.driver import run_campaign
from cluster.store.store import Store
from cluster.workers.executor import TaskExecutor
from editors.core.artefacts import Artefact
from editors.core.editor import Editor
from editors.core.errors import InputError
from editors.core.models.loading import model_digest
from editors.core.patches.patch import Patch
from editors.ft import FineTuning, FineTuningConfig
from evaluators.scoring.judge import baseline

BATCH = {"name": "batch", "sizes": [1, 3]}
STREAM = {"name": "sequential", "lengths": [3, 1]}
EDITORS = ["identity", {"name": "ft", "config": FT}]


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def of_kind(planned, kind, title=""):
    return [task for task in planned.tasks.values() if task.kind == kind and task.title.startswith(title)]


def found_rows(store, planned):
    table = store.rows(task.record() for task in planned.tasks.values())
    names = ("editor", "protocol", "edits", "case_id", "metric")
    keys = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, table["value"].to_pylist(), strict=True))


# --- plans


def test_batches_are_whole_and_the_rest_is_told(make_plan):
    planned = make_plan(protocols=["single", BATCH], editors=EDITORS)
    batches = [task for task in of_kind(planned, "score", "ft") if task.protocol.name == "batch"]
    assert [(task.count, task.chunk.first, task.chunk.last, len(task.baselines)) for task in batches] == [
        (1, 1, 2, 1), (1, 3, 4, 1), (3, 1, 3, 2)]
    assert planned.notes == ("testbed-cloze: batches of 3 leave out the last 1 of 4 cases, which make no whole batch",)
    assert batches[-1].title == "ft on tiny 3 at once: testbed-cloze, cases 1-3"
    assert sum(task.edits for task in batches) == 7
    assert len(of_kind(planned, "baseline")) == 2


def test_small_batches_share_a_task(make_plan):
    planned = make_plan(protocols=[{"name": "batch", "sizes": [2]}], chunk=5, editors=["identity"],
                        datasets=[{"name": "testbed-cloze", "limit": 9}])
    assert [len(task.chunk.cases) for task in of_kind(planned, "score")] == [4, 4]


def test_a_stream_is_a_chain_of_segments_scored_at_each_length(make_plan):
    planned = make_plan(protocols=[STREAM], editors=[{"name": "rome", "config": ROME}])
    first, second = of_kind(planned, "stream")
    [moments] = of_kind(planned, "statistics")
    assert (first.needs, second.needs) == ((moments.id,), (first.id, moments.id))
    assert [(task.chunk.first, task.chunk.last) for task in (first, second)] == [(1, 1), (2, 3)]
    scores = of_kind(planned, "score")
    assert [(task.count, task.chunk.first, task.chunk.last, task.stream.id) for task in scores] == [
        (1, 1, 1, first.id), (3, 1, 2, second.id), (3, 3, 3, second.id)]
    assert sum(task.edits for task in planned.tasks.values()) == 3
    position = {task: place for place, task in enumerate(planned.tasks)}
    assert all(position[need] < position[task.id] for task in planned.tasks.values() for need in task.needs)


def test_a_longer_stream_keeps_what_was_done(make_plan):
    before = make_plan(protocols=[STREAM], editors=EDITORS)
    after = make_plan(protocols=[{"name": "sequential", "lengths": [1, 3, 4]}], editors=EDITORS)
    assert before.tasks.keys() < after.tasks.keys()


def test_other_protocols_change_no_id(make_plan):
    single, all_three = make_plan(editors=EDITORS), make_plan(editors=EDITORS, protocols=["single", BATCH, STREAM])
    assert single.tasks.keys() < all_three.tasks.keys()


def test_ids_tell_numbers_of_edits_apart(make_plan):
    """One chunk of two cases: in batches of one, in a batch of two, alone."""
    planned = make_plan(protocols=["single", {"name": "batch", "sizes": [1, 2]}], editors=["identity"])
    assert len(of_kind(planned, "score")) == 6


def test_editors_and_data_sets_keep_to_their_models_and_protocols(make_plan, tiny_folder):
    models = [{"name": name, "path": str(tiny_folder), "dtype": dtype}
              for name, dtype in (("a", "float32"), ("b", "bfloat16"))]
    planned = make_plan(
        models=models, protocols=["single", STREAM],
        datasets=[{"name": "testbed-cloze", "limit": 4, "models": ["a"]}, {"name": "testbed-questions", "limit": 4}],
        editors=["identity", {"name": "ft", "config": FT, "models": ["b"], "protocols": ["single"]}])
    assert {(task.editor_title, task.model_title, task.chunk.dataset, task.protocol.name)
            for task in of_kind(planned, "score")} == {
        ("identity", "a", "testbed-cloze", "single"), ("identity", "a", "testbed-cloze", "sequential"),
        ("identity", "a", "testbed-questions", "single"), ("identity", "a", "testbed-questions", "sequential"),
        ("identity", "b", "testbed-questions", "single"), ("identity", "b", "testbed-questions", "sequential"),
        ("ft", "b", "testbed-questions", "single")}
    assert not [task for task in of_kind(planned, "baseline") if "of b: testbed-cloze" in task.title]


@pytest.mark.parametrize(("change", "message"), [
    ({"protocols": [{"name": "batch", "sizes": [1, 5]}], "editors": ["identity"]},
     r"protocols\[0\].sizes: .* 5 edits .*'testbed-cloze' has 4"),
    ({"protocols": ["single", {"name": "sequential", "lengths": [9]}]},
     r"protocols\[1\].lengths: .* 9 edits .*'testbed-cloze' has 4"),
    ({"protocols": [BATCH]}, r"editors\[2\]: editor 'rome' makes one .*can: .*ft, identity.*'protocols: \[single\]'"),
    ({"protocols": [BATCH, STREAM]}, r"editors\[2\]: .*'protocols: \[sequential\]'"),
    ({"editors": [{"name": "ft", "models": ["tini"]}]}, r"editors\[0\].models: .*'tini'. Did you mean 'tiny'"),
    ({"editors": [{"name": "ft", "protocols": ["batch"]}]}, r"editors\[0\].protocols: .*'batch'.*single"),
    ({"datasets": [{"name": "testbed-cloze", "models": ["x"]}]}, r"datasets\[0\].models: .*'x'.*tiny"),
    ({"editors": [{"name": "ft", "config": FT, "artefact": "a"}]}, r"editors\[0\].artefact: editor 'ft' is not train"),
])
def test_what_could_not_run_is_refused_with_its_place(make_plan, change, message):
    with pytest.raises(InputError, match=r"small.yaml, line \d+, " + message):
        make_plan(**change)


def test_an_editor_for_decoders_is_refused_for_an_encoder_decoder(make_plan, tiny_t5, tmp_path):
    tiny_t5.module.save_pretrained(tmp_path / "t5")
    tiny_t5.tokenizer.save_pretrained(tmp_path / "t5")
    with pytest.raises(InputError, match=r"editors\[0\]: editor 'rome' is for decoder-only models"):
        make_plan(models=[{"name": "t5", "path": "t5"}], editors=[{"name": "rome", "config": ROME}])


def test_seeds_and_orders_repeat_what_they_change(make_plan):
    planned = make_plan(protocols=["single", {"name": "batch", "sizes": [2]}, STREAM], seeds=[0, 3], orders=[0, 7],
                        editors=EDITORS[1:])
    scores = of_kind(planned, "score")
    assert {(task.protocol.name, task.method.seed, task.order) for task in scores} == {
        ("single", 0, 0), ("single", 3, 0), *((protocol, seed, order) for protocol in ("batch", "sequential")
                                              for seed in (0, 3) for order in (0, 7))}
    cases = planned.datasets[0].cases
    batches = [task for task in scores if task.protocol.name == "batch" and task.method.seed == 0]
    in_file, shuffled = ([case for task in batches if task.order == order for case in task.chunk.cases]
                         for order in (0, 7))
    assert tuple(in_file) == cases and shuffled != in_file
    assert sorted(case.id for case in shuffled) == [case.id for case in cases]
    for task in scores:
        known = {case.id for baseline in task.baselines for case in baseline.chunk.cases}
        assert {case.id for case in task.chunk.cases} <= known
    assert any("in order 7" in task.title for task in scores)


def test_rows_of_every_seed_and_order_are_told_apart(make_plan, store, local_pool):
    planned = make_plan(protocols=[{"name": "batch", "sizes": [2]}], seeds=[0, 3], orders=[0, 7], editors=EDITORS[1:])
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    table = store.rows(task.record() for task in planned.tasks.values())
    counted = Counter(zip(table["seed"].to_pylist(), table["order"].to_pylist(), table["metric"].to_pylist(),
                          strict=True))
    assert {(seed, order) for seed, order, _ in counted} == {(0, 0), (0, 7), (3, 0), (3, 7)}
    assert all(counted[seed, order, "reliability.exact"] == 4 for seed in (0, 3) for order in (0, 7))


def test_edits_that_contradict_each_other_are_not_made_together(make_plan, tmp_path):
    lines = [{"prompt": "Ann Bo was born in", "subject": "Ann Bo", "target_new": place} for place in ("Rome", "Oslo")]
    lines += [{"prompt": f"{name} was born in", "subject": name, "target_new": "Rome"} for name in ("Cy", "Di")]
    (tmp_path / "edits.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    fields = {"datasets": [{"name": "mine", "path": str(tmp_path / "edits.jsonl")}], "editors": ["identity"],
              "protocols": ["single", {"name": "batch", "sizes": [3]}]}
    planned = make_plan(**fields)
    edited = {task.protocol.name: [case.target_new for case in task.chunk.cases] for task in of_kind(planned, "score")
              if task.protocol.name == "batch"}
    assert edited == {"batch": ["Rome", "Rome", "Rome"]}
    assert sum(len(task.chunk.cases) for task in of_kind(planned, "score") if task.protocol.name == "single") == 4
    assert any("leave out 1 cases that contradict" in note for note in planned.notes)
    told = make_plan(**fields, contradictions="allow")
    assert [case.target_new for task in of_kind(told, "score") if task.protocol.name == "batch"
            for case in task.chunk.cases] == ["Rome", "Oslo", "Rome"]
    with pytest.raises(InputError, match=r"sizes.*has 3"):
        make_plan(**{**fields, "protocols": [{"name": "batch", "sizes": [4]}]})


def test_steps_of_several_edits_need_an_editor_that_joins_them(make_plan):
    steps = {**STREAM, "step": 2}
    planned = make_plan(protocols=[steps], editors=EDITORS)
    assert {task.protocol.step for task in of_kind(planned, "stream")} == {2}
    assert not {task.id for task in of_kind(planned, "stream")} & set(make_plan(protocols=[STREAM],
                                                                                editors=EDITORS).tasks)
    with pytest.raises(InputError, match=r"'rome' makes one edit at a time.*long steps"):
        make_plan(protocols=[steps])


# --- what runs


MEASURES = {"kl": True, "distracting": True, "generation": {"tokens": 4}, "perplexity": {"texts": 2}}


def test_what_writing_lacks_is_told(make_plan, monkeypatch):
    assert any("no case has generation prompts" in note for note in make_plan(measures={"fluency": True}).notes)
    monkeypatch.setattr("evaluators.scoring.measures.fluency.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"measures.fluency: .*pip install 'editfleet\[fluency\]'"):
        make_plan(measures={"fluency": True})


def test_measures_reach_the_rows_and_the_ids(make_plan, store, local_pool):
    fields = {"protocols": ["single", STREAM], "editors": EDITORS}
    plain, planned = make_plan(**fields), make_plan(**fields, measures=MEASURES)
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    found = {key[4] for key in found_rows(store, planned)}
    assert {"locality.kl", "locality.distracting.exact", "reliability.generation", "perplexity",
            "newest.reliability.exact"} <= found
    assert {task.id for task in of_kind(plain, "stream")} == {task.id for task in of_kind(planned, "stream")}
    others = {task.id for kind in ("baseline", "score") for task in of_kind(plain, kind)}
    assert not others & set(planned.tasks)
    more = make_plan(**fields, measures={"perplexity": {"texts": 2}})
    assert {task.id for task in of_kind(plain, "baseline")} == {task.id for task in of_kind(more, "baseline")}
    table = store.rows(task.record() for task in planned.tasks.values())
    texts = [text for text, metric in zip(table["texts"].to_pylist(), table["metric"].to_pylist(), strict=True)
             if metric == "generality.generation"]
    assert texts and all(len(each) == 3 for each in texts)
    [scored, *_] = of_kind(planned, "score", "ft")
    assert store.provenance(scored.key)["data"]["name"] == "testbed-cloze"



def test_rows_are_those_of_the_protocols(make_plan, store, local_pool, tiny_gptj):
    planned = make_plan(protocols=[BATCH, STREAM], editors=EDITORS)
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    rows = found_rows(store, planned)
    cases = planned.datasets[0].cases
    before, _ = baseline(tiny_gptj, cases)
    editor = FineTuning(tiny_gptj, FineTuningConfig(**FT))
    expected = {}
    for size in BATCH["sizes"]:
        whole = cases[: 4 // size * size]
        expected |= {("ft", "batch", size, each.case_id, each.metric): each.value
                     for each in batch(editor, whole, before, size).scores}
    for length, result in sequential(editor, cases, before, STREAM["lengths"]):
        expected |= {("ft", "sequential", length, each.case_id, each.metric): each.value for each in result.scores}
    assert {key: value for key, value in rows.items() if key[0] == "ft"} == pytest.approx(expected, abs=1e-5)
    assert {key[1:3] for key in rows} == {("batch", 1), ("batch", 3), ("sequential", 1), ("sequential", 3)}

    [scored] = [task for task in of_kind(planned, "score", "ft on tiny after 3") if task.chunk.first == 1]
    provenance = store.provenance(scored.key)
    assert provenance["identity"]["count"] == 3 and provenance["seconds_edit"] > 0


def test_a_lost_segment_is_all_that_is_done_again(make_plan, store, local_pool):
    planned = make_plan(protocols=[STREAM], editors=EDITORS[1:])
    run_campaign(planned, store, local_pool(store))
    rows = found_rows(store, planned)
    first, second = of_kind(planned, "stream")
    scores = [task for task in of_kind(planned, "score") if task.stream == second.key]
    before = store.provenance(second.key)
    assert before["seconds_edit"] > store.provenance(first.key)["seconds_edit"] > 0
    for task in (second, *scores):
        store.local(task.key).unlink()
    run_campaign(planned, store, local_pool(store))
    assert set(local_pool.pools[1].ran) == {second.id, *(task.id for task in scores)}
    assert found_rows(store, planned) == rows
    again = store.provenance(second.key)
    assert again["sha256"] == before["sha256"] and again["seconds_edit"] != before["seconds_edit"]


def test_a_case_a_stream_cannot_edit_is_named(make_plan, store, local_pool, monkeypatch):
    class Picky(Editor):
        name, version = "picky", 1

        def edit_each(self, requests):
            if any(request.id.endswith("1") for request in requests):
                raise ValueError("not this one")
            return [Patch() for _ in requests]

    register(monkeypatch, Picky)
    planned = make_plan(protocols=[STREAM], editors=["picky"])
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    [failed] = store.failed_cases(store.campaigns()[0].tasks)
    assert "not this one" in failed.reason
    assert {key[3] for key in found_rows(store, planned)} == {
        case.id for case in planned.datasets[0].cases[:3] if case.id != failed.case_id}


# --- methods that are trained


TRAINED = {"protocols": ["single", BATCH, STREAM], "training": {"limit": 6}}


def test_a_checkpoint_stays_until_what_was_learned_is_in_the_store(make_plan, store, drilled, monkeypatch):
    [train] = of_kind(make_plan(editors=["drilled"], **TRAINED), "train")

    def fail(self, path):
        raise OSError("no room")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no room"):
        patch.setattr(Artefact, "save", fail)
        TaskExecutor(store).run(train)
    assert len(list(Path(store.root, "checkpoints").iterdir())) == 1 and not store.has(train.key)
    TaskExecutor(store).run(train)
    assert list(Path(store.root, "checkpoints").iterdir()) == [] and store.has(train.key)


def test_an_editor_is_trained_once_for_all_that_need_it(make_plan, store, local_pool, drilled):
    planned = make_plan(editors=["drilled"], **TRAINED)
    [train] = of_kind(planned, "train")
    assert train.title == "training of drilled on tiny: testbed-cloze"
    assert len(train.cases.cases) == 6 and {case.id.split("-")[1] for case in train.cases.cases} == {"train"}
    assert all(train.id in task.needs for task in of_kind(planned, "stream"))
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    assert drilled.runs == 1
    assert list(Path(store.root, "checkpoints").iterdir()) == []
    single = next(task for task in of_kind(planned, "score") if task.protocol.name == "single")
    assert store.provenance(single.key)["training"] == train.id
    assert run_campaign(make_plan(editors=["drilled"], **TRAINED), store, local_pool(store)).failed == 0
    assert drilled.runs == 1


SERAC = {"name": "serac", "config": {"steps": 2, "batch_size": 2, "accumulate": 1, "validate_every": 2,
                                     "validation_examples": 2, "classifier_width": 32, "classifier_layers": 1}}


def test_a_stream_of_routes_is_scored_by_a_worker_that_did_not_make_it(make_plan, store):
    planned = make_plan(editors=[SERAC], protocols=[{"name": "sequential", "lengths": [2, 4]}], training={"limit": 6})
    tasks = list(planned.tasks.values())
    maker = TaskExecutor(store)
    for task in tasks:
        if task.kind != "score":
            maker.run(task)
    for task in tasks:
        TaskExecutor(store).run(task)
    scored = [store.read_table(task.key)["metric"].to_pylist() for task in of_kind(planned, "score")]
    assert len(scored) == 3 and all("reliability.exact" in metrics for metrics in scored)


def test_training_depends_on_its_settings_cases_and_seed_alone(make_plan, drilled):
    def train_ids(**changes):
        return [task.id for task in of_kind(make_plan(**{"editors": ["drilled"], **TRAINED, **changes}), "train")]

    [known] = train_ids()
    assert train_ids(editors=[{"name": "drilled", "config": {"strength": 2.0}}]) == [known]
    assert train_ids(datasets=[{"name": "testbed-cloze", "limit": 3}]) == [known]
    twice = [{"name": "drilled"}, {"name": "drilled", "label": "weak", "config": {"strength": 0.1}}]
    assert train_ids(editors=twice) == [known]
    for change in ({"seeds": [1]}, {"training": {"limit": 7}},
                   {"datasets": [{"name": "testbed-questions", "limit": 4}]},
                   {"editors": [{"name": "drilled", "config": {"width": 2}}]}):
        assert known not in train_ids(**change)
    assert len(train_ids(datasets=[{"name": name, "limit": 4} for name in ("testbed-cloze", "testbed-questions")])) == 2


def test_edits_may_change_without_training_anew(make_plan, drilled, monkeypatch):
    def ids(kind):
        return {task.id for task in of_kind(make_plan(editors=["drilled"], **TRAINED), kind)}

    trained, scored = ids("train"), ids("score")
    monkeypatch.setattr(drilled, "version", 2)
    assert ids("train") == trained and not ids("score") & scored
    monkeypatch.setattr(drilled, "training_version", 2)
    assert not ids("train") & trained


def test_what_was_shipped_is_not_trained(make_plan, store, local_pool, drilled, monkeypatch, tmp_path):
    planned = make_plan(editors=["drilled"], **TRAINED)
    [train] = of_kind(planned, "train")
    TaskExecutor(store).run(train)
    (tmp_path / "shipped").mkdir()
    shutil.copy(store.local(train.key), tmp_path / "shipped")
    monkeypatch.setattr("cluster.plan.tasks.SHIPPED", tmp_path / "shipped")
    other = Store.create(tmp_path / "other")
    assert run_campaign(planned, other, local_pool(other)).failed == 0
    assert drilled.runs == 1 and train.cost == 1
    assert other.local(train.key).read_bytes() == store.local(train.key).read_bytes()


def test_an_artefact_may_be_given(make_plan, store, local_pool, drilled, tmp_path):
    trained = make_plan(editors=["drilled"], **TRAINED)
    run_campaign(trained, store, local_pool(store))
    shutil.copy(store.local(of_kind(trained, "train")[0].key), tmp_path / "mine.safetensors")
    given = make_plan(editors=[{"name": "drilled", "artefact": "mine.safetensors"}], **TRAINED)
    assert not of_kind(given, "train")
    assert not {task.id for task in of_kind(given, "score")} & {task.id for task in of_kind(trained, "score")}
    other = Store.create(tmp_path / "other")
    assert run_campaign(given, other, local_pool(other)).failed == 0
    assert drilled.runs == 1
    assert found_rows(other, given) == found_rows(store, trained)


def test_an_artefact_that_changed_fails(make_plan, store, local_pool, drilled, tmp_path, tiny_folder):
    def write(number):
        artefact = Artefact("drilled", 1, {"width": 1}, model_digest(tiny_folder), {"learned": torch.tensor(number)})
        artefact.save(tmp_path / "mine.safetensors")

    write(1.0)
    planned = make_plan(editors=[{"name": "drilled", "artefact": "mine.safetensors"}])
    write(2.0)
    assert run_campaign(planned, store, local_pool(store)).failed == 2
    assert "has changed" in store.standing(store.campaigns()[0]).failures[0].summary


@pytest.mark.parametrize(("config", "said"), [
    ({"width": 2}, "was trained with width 1, not 2: leave width out"),
    ({"width": 1}, None), ({"strength": 2.0}, None)])
def test_settings_are_those_an_artefact_was_trained_with(make_plan, drilled, tmp_path, tiny_folder, config, said):
    artefact = Artefact("drilled", 1, {"width": 1}, model_digest(tiny_folder), {"learned": torch.tensor(1.0)})
    artefact.save(tmp_path / "mine.safetensors")
    editor = {"name": "drilled", "artefact": "mine.safetensors", "config": config}
    if said is None:
        assert make_plan(editors=[editor]).tasks
        return
    with pytest.raises(InputError, match=rf"small.yaml, line \d+, editors\[0\].artefact: .*{said}"):
        make_plan(editors=[editor])


@pytest.mark.parametrize(("editor", "version", "model", "message"), [
    ("mend", 1, None, "editor 'mend', not 'drilled'"), ("drilled", 7, None, "version '7', not '1'"),
    ("drilled", 1, "other", "model 'other'")])
def test_an_artefact_for_something_else_is_refused(make_plan, drilled, tmp_path, tiny_folder, editor, version, model,
                                                   message):
    Artefact(editor, version, {}, model or model_digest(tiny_folder)).save(tmp_path / "mine.safetensors")
    with pytest.raises(InputError, match=rf"small.yaml, line \d+, editors\[0\].artefact: .*{message}.*train it again"):
        make_plan(editors=[{"name": "drilled", "artefact": "mine.safetensors"}])


@pytest.mark.parametrize(("harm", "message"), [
    (lambda path, artefact: path.write_bytes(path.read_bytes()[:-1]), "is not a safetensors file, or is damaged"),
    (lambda path, artefact: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"), "'learned' is not what was written"),
    (lambda path, artefact: replace(artefact, config={"width": "wide"}).save(path), "settings are none of .*width"),
    (lambda path, artefact: replace(artefact, tensors={"learned": torch.tensor(torch.nan)}).save(path), "not finite"),
    (lambda path, artefact: Patch().save(path), "it holds a patch"),
    (lambda path, artefact: path.unlink() or path.mkdir(), "it is a folder")])
def test_a_damaged_artefact_is_refused_at_planning(make_plan, drilled, tmp_path, tiny_folder, harm, message):
    artefact = Artefact("drilled", 1, {"width": 1}, model_digest(tiny_folder), {"learned": torch.tensor(1.0)})
    artefact.save(path := tmp_path / "mine.safetensors")
    harm(path, artefact)
    with pytest.raises(InputError, match=rf"small.yaml, line \d+, editors\[0\].artefact: .*{message}"):
        make_plan(editors=[{"name": "drilled", "artefact": "mine.safetensors"}])


def test_training_cases_that_are_missing_are_named(make_plan, drilled, tmp_path):
    (tmp_path / "cases.json").write_text(
        '[{"case_id": 1, "requested_rewrite": {"prompt": "{} is", "subject": "A", "target_new": {"str": "x"}, '
        '"target_true": {"str": "y"}}, "paraphrase_prompts": ["A was"], "neighborhood_prompts": ["B is"]}]')
    data = {"name": "mine", "path": "cases.json", "format": "counterfact"}
    with pytest.raises(InputError, match=r"line \d+, editors\[0\]: editor 'drilled' .*'mine'.*'train: FILE'"):
        make_plan(editors=["drilled"], datasets=[data])
    assert make_plan(editors=["identity"], datasets=[data])
    [train] = of_kind(make_plan(editors=["drilled"], datasets=[{**data, "train": "cases.json"}]), "train")
    assert [case.subject for case in train.cases.cases] == ["A"]
