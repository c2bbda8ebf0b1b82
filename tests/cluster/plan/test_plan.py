"""Plans: which tasks there are, and that an id changes with all that matters and with nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from support.campaigns import ROME

from cluster.campaign.file import load_campaign
from cluster.campaign.spec import WorkerSpec
from cluster.plan.planner import plan
from cluster.plan.tasks import TrainTask
from cluster.store.store import Store
from cluster.workers.runner import TaskRunner
from editors import get_editor
from editors.core.artefacts import Artefact
from editors.core.errors import InputError
from evaluators.protocols import get_protocol
from evaluators.scoring import metrics
from evaluators.scoring.measures import get_measure
from evaluators.testbed.learned import SHIPPED, find_learned
from jobs.console import find_campaign

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def ids(planned, kind=None, title=""):
    return {task.id for task in planned.tasks.values() if kind in (None, task.kind) and task.title.startswith(title)}


def test_every_editor_scores_every_chunk_after_its_baseline(make_plan):
    planned = make_plan()
    kinds = [task.kind for task in planned.tasks.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"baseline": 2, "statistics": 1, "score": 6}
    assert sum(task.edits for task in planned.tasks.values()) == 12
    position = {task: place for place, task in enumerate(planned.tasks)}
    for task in planned.tasks.values():
        assert all(position[need] < position[task.id] for need in task.needs)
        if task.kind == "score":
            assert (len(task.needs) == 2) == (task.method.editor.name == "rome")
            assert planned.tasks[task.needs[0]].chunk.cases == task.chunk.cases


def test_the_last_chunk_may_be_short(make_plan):
    planned = make_plan(chunk=3, editors=["identity"])
    assert [len(task.chunk.cases) for task in planned.tasks.values() if task.kind == "score"] == [3, 1]


def test_ids_are_the_same_in_every_process(write_campaign):
    path = write_campaign()
    program = ("import sys, json; from cluster.campaign.file import load_campaign; "
               "from cluster.plan.planner import plan; "
               "print(json.dumps(list(plan(load_campaign(sys.argv[1])).tasks)))")
    other = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)})
    assert json.loads(other.stdout) == list(plan(load_campaign(path)).tasks)


def test_ids_do_not_depend_on_names_and_places(make_plan, tiny_folder, tmp_path):
    before = make_plan()
    shutil.copytree(tiny_folder, tmp_path / "moved")
    moved = make_plan(models=[{"name": "tiny", "path": str(tmp_path / "moved")}], name="other", workers={"count": 3},
                      editors=[spec.model_dump() for spec in reversed(before.campaign.editors)])
    assert ids(moved) == ids(before)


@pytest.mark.parametrize(("change", "kept"), [
    ({"seeds": [1]}, {"baseline", "statistics"}),
    ({"statistics": {"tokens": 501}}, {"baseline", "score identity", "score ft"}),
    ({"datasets": [{"name": "testbed-cloze", "limit": 4, "offset": 4}]}, {"statistics"}),
    ({"datasets": [{"name": "testbed-cloze", "limit": 4, "split": "train"}]}, {"statistics"}),
    ({"datasets": [{"name": "testbed-questions", "limit": 4}]}, {"statistics"}),
], ids=["seed", "tokens", "offset", "split", "dataset"])
def test_ids_change_with_what_the_result_depends_on(make_plan, change, kept):
    before, after = make_plan(), make_plan(**change)
    same = ids(before) & ids(after)
    names = {f"{task.kind} {task.method.editor.name}" if task.kind == "score" else task.kind
             for task in before.tasks.values() if task.id in same}
    assert names == kept


def test_a_configuration_changes_only_its_editor(make_plan):
    before = make_plan()
    editors = [spec.model_dump() for spec in before.campaign.editors]
    editors[1]["config"]["lr"] = 1e-3
    after = make_plan(editors=editors)
    assert ids(before) - ids(after) == ids(before, "score", "ft on")
    assert len(ids(after) - ids(before)) == 2


def test_spelling_a_default_out_changes_nothing(make_plan):
    before = make_plan()
    editors = [spec.model_dump() for spec in before.campaign.editors]
    editors[1]["config"]["bias"] = True
    assert ids(make_plan(editors=editors)) == ids(before)


def test_the_models_content_and_dtype_matter(make_plan, tiny_folder, tmp_path):
    before = make_plan()
    assert not ids(before) & ids(make_plan(models=[{"name": "tiny", "path": str(tiny_folder), "dtype": "bfloat16"}]))
    changed = tmp_path / "changed"
    shutil.copytree(tiny_folder, changed)
    weights = changed / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert not ids(before) & ids(make_plan(models=[{"name": "tiny", "path": str(changed)}]))


def test_a_corpus_is_known_by_its_content(make_plan, tmp_path):
    text = tmp_path / "corpus.txt"
    text.write_text("one line\nanother line\n")
    before = make_plan(statistics={"corpus": str(text)})
    assert before.tasks.keys() == make_plan(statistics={"corpus": "corpus.txt"}).tasks.keys()
    text.write_text("one line\nanother lime\n")
    after = make_plan(statistics={"corpus": str(text)})
    assert ids(before) - ids(after) == ids(before, "statistics") | ids(before, "score", "rome")


def test_versions_matter(make_plan, monkeypatch):
    before = make_plan()
    changed = replace(metrics.METRICS["locality.token"], version=2)
    monkeypatch.setitem(metrics.METRICS, "locality.token", changed)
    assert ids(before) - ids(make_plan()) == ids(before, "score")
    monkeypatch.undo()
    monkeypatch.setattr(get_protocol("single"), "version", 99)
    assert ids(before) - ids(make_plan()) == ids(before, "score")
    measured = make_plan(measures={"perplexity": {"texts": 2}})
    monkeypatch.setattr(get_measure("perplexity"), "version", 99)
    assert ids(measured) - ids(make_plan(measures={"perplexity": {"texts": 2}})) == ids(measured, "score")
    monkeypatch.undo()
    monkeypatch.setattr(get_editor("ft"), "version", 99)
    assert ids(before) - ids(make_plan()) == ids(before, "score", "ft")


def test_rows_tell_by_their_settings_what_no_other_column_tells(make_plan, drilled, tiny_folder, monkeypatch):
    """Alike for all cases, seeds, orders and numbers of edits of one configuration; another's differ."""
    def settings(editor, **changes):
        tasks = make_plan(**{"editors": ["identity", "drilled", {"name": "rome", "config": ROME}], "chunk": 2,
                             "training": {"limit": 5}, **changes}).tasks.values()
        return {task.settings for task in tasks if task.kind == "score" and task.method.editor.name == editor}

    known = {name: settings(name) for name in ("identity", "drilled", "rome")}
    assert all(len(found) == 1 for found in known.values()) and len(set.union(*known.values())) == 3
    for change in ({"seeds": [0, 1]}, {"datasets": [{"name": "testbed-cloze", "limit": 6}]}, {"name": "other"}):
        assert {name: settings(name, **change) for name in known} == known
    batches = {"editors": ["identity"], "protocols": [{"name": "batch", "sizes": [1, 2]}], "orders": [0, 1]}
    assert len(settings("identity", **batches)) == 1
    changed = {
        "drilled": [{"editors": [{"name": "drilled", "config": {"strength": 2.0}}]}, {"training": {"limit": 6}}],
        "rome": [{"statistics": {"tokens": 501}}, {"editors": [{"name": "rome", "config": {**ROME, "lr": 0.1}}]}],
        "identity": [{"measures": {"kl": True}},
                     {"editors": ["identity"], "protocols": [{"name": "batch", "sizes": [2]}]},
                     {"models": [{"name": "tiny", "path": str(tiny_folder), "dtype": "bfloat16"}]}]}
    for name, changes in changed.items():
        for change in changes:
            assert not known[name] & settings(name, **change), change
    monkeypatch.setitem(metrics.METRICS, "locality.token", replace(metrics.METRICS["locality.token"], version=2))
    assert not known["identity"] & settings("identity")


def test_a_longer_data_set_keeps_what_was_done(make_plan):
    before, after = make_plan(), make_plan(datasets=[{"name": "testbed-cloze", "limit": 6}])
    assert ids(before) < ids(after)


def test_two_models_share_nothing_but_their_data(make_plan, tiny_folder):
    planned = make_plan(models=[{"name": "a", "path": str(tiny_folder)},
                                {"name": "b", "path": str(tiny_folder), "dtype": "bfloat16"}])
    assert len(planned.tasks) == 18
    assert len({task.model.key for task in planned.tasks.values()}) == 2


def test_a_model_listed_under_two_names_is_measured_once(make_plan, tiny_folder):
    planned = make_plan(models=[{"name": "a", "path": str(tiny_folder)}, {"name": "b", "path": str(tiny_folder)}])
    assert len(ids(planned, "baseline")) == 2 and len(ids(planned, "statistics")) == 1
    assert len(ids(planned, "score")) == 12


def test_the_record_holds_what_reports_need(make_plan):
    planned = make_plan()
    record = planned.record(NOW)
    assert [task.id for task in record.tasks] == list(planned.tasks)
    assert [(data.name, data.cases) for data in record.datasets] == [("testbed-cloze", 4)]
    assert record.digest == make_plan(workers={"count": 7}).record(NOW).digest
    assert record.digest != make_plan(seeds=[5]).record(NOW).digest


@pytest.mark.parametrize(("change", "message"), [
    ({"models": ["testbed-gtpj"]}, r"models\[0\]: unknown model 'testbed-gtpj'. Did you mean 'testbed-gptj'"),
    ({"models": [{"name": "x", "path": "/nowhere/at/all"}]}, r"models\[0\]: cannot load model '/nowhere/at/all'"),
    ({"datasets": ["testbed-clozes"]}, r"datasets\[0\]: unknown .*Did you mean 'testbed-cloze'"),
    ({"datasets": [{"name": "d", "path": "absent.json", "format": "counterfact"}]}, r"datasets\[0\]: .*absent.json"),
    ({"editors": [{"name": "ft", "config": {"layer": [1]}}]}, r"editors\[0\].config.layer: .*Did you mean 'layers'"),
    ({"editors": [{"name": "rome", "config": {"layer": "low"}}]}, r"editors\[0\].config.layer: .*'low'"),
    ({"editors": ["rome"]}, r"editors\[0\]: .*layer: required"),
    ({"statistics": {"corpus": "absent.txt"}}, r"statistics.corpus: .*absent.txt"),
])
def test_what_could_not_run_is_refused_with_its_place(make_plan, change, message):
    with pytest.raises(InputError, match=r"small.yaml, line \d+, " + message):
        make_plan(**change)


def test_a_model_of_an_unsupported_type_is_refused(make_plan, tmp_path):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="is of type 'bert'; supported types: "):
        make_plan(models=[{"name": "bert", "path": "bert"}])


def test_what_takes_minutes_to_train_ships_with_the_campaigns_that_need_it():
    tasks = [task for name in ("quickstart", "testbed", "streams")
             for task in plan(load_campaign(find_campaign(name))).tasks.values() if isinstance(task, TrainTask)]
    assert {task.editor.name for task in tasks if task.shipped is None} == {"t-patcher"}  # seconds
    shipped = {task.id: task for task in tasks if task.shipped}
    assert {file.stem for file in SHIPPED.glob("*.safetensors")} == set(shipped)
    for task in shipped.values():
        artefact = Artefact.load(task.shipped)
        artefact.check(task.editor.name, task.editor.version, task.model.digest)
        assert artefact.config == json.loads(json.dumps(task.settings))
        assert find_learned(task.editor.name, task.model.digest) == task.shipped


def test_a_side_model_that_is_not_there_is_refused_before_anything_runs(make_plan):
    with pytest.raises(InputError, match=r"editors\[0\].*cannot load model '/none'"):
        make_plan(editors=[{"name": "serac", "config": {"side_model": "/none"}}])


# --- what is computed with


def test_cores_are_no_part_of_a_task_and_threads_are(make_plan):
    one = make_plan()
    assert set(make_plan(workers={"cpus": 2}).tasks) == set(one.tasks)
    more = make_plan(workers={"cpus": 2, "threads": 2})
    assert not set(more.tasks) & set(one.tasks)
    with pytest.raises(InputError, match=r"workers: 'threads: 2' needs as many cores; add 'cpus: 2'"):
        make_plan(workers={"threads": 2})


@pytest.mark.parametrize("threads", [1, 2])
def test_tasks_compute_on_the_threads_that_they_were_planned_with(make_plan, tmp_path, monkeypatch, threads):
    asked = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    store = Store.create(tmp_path / "store")
    task = next(iter(make_plan(workers={"cpus": 2, "threads": threads}).tasks.values()))
    TaskRunner(str(tmp_path / "store"), WorkerSpec(cpus=2, threads=2, gpus=0)).run(task)
    assert store.has(task.key) and asked == [2, threads]
