"""How tasks are cut: by the table of costs, as the campaign says, or as they were cut before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from transformers import GPTJConfig, T5Config

from cluster.campaign.file import load_campaign
from cluster.driver import run_campaign
from cluster.plan import costs
from cluster.plan.cutting import frozen_sizes
from cluster.plan.planner import plan
from cluster.store.store import Store
from editors import EDITORS, get_editor, resolve_config
from editors.core.models.architectures import Shape
from editors.core.models.loading import load_config, load_model
from evaluators.scoring.measures import Measures
from evaluators.testbed import model_path
from jobs.console import find_campaign, plan_campaign

BUILT_IN = ("testbed-gptj", "testbed-t5")
T5_XL = T5Config(d_model=2048, d_ff=5120, num_layers=24, num_heads=32, d_kv=64, feed_forward_proj="gated-gelu",
                 tie_word_embeddings=False)
#: Seconds per edit on one CPU core, with 100 cases of the built-in world.
MEASURED = {"testbed-gptj": {"ft": 0.139, "calinet": 0.160, "t-patcher": 0.133, "ke": 0.012, "mend": 0.014, "kn": 0.258,
                             "rome": 0.884, "memit": 0.325},
            "testbed-t5": {"ft": 0.086, "calinet": 0.161, "t-patcher": 0.084, "ke": 0.008, "mend": 0.009, "kn": 0.081}}
ASKED = {"testbed-gptj": 0.101, "testbed-t5": 0.060}  # likewise, all questions of a case


def config_of(model):
    return load_config(str(model_path(model)))


@pytest.mark.parametrize("model", BUILT_IN)
def test_the_table_tells_what_was_measured_on_one_core(model):
    config = config_of(model)
    shape = Shape.of(config)
    for editor, seconds in MEASURED[model].items():
        told = costs.edit_seconds(shape, editor, resolve_config(editor, config).model_dump(mode="json"))
        assert 0.4 < told / seconds < 2.5, editor
    assert 0.6 < costs.baseline_seconds(shape) / ASKED[model] < 1.6


def test_shapes_are_those_of_the_weights():
    for model in BUILT_IN:
        loaded = load_model(model_path(model)).module
        shape = Shape.of(config_of(model))
        assert shape.parameters == sum(parameter.numel() for parameter in loaded.parameters())
        assert (shape.depth, shape.width) == (loaded.config.num_hidden_layers, loaded.config.hidden_size)
    assert Shape.of(GPTJConfig()).parameters == 6_050_882_784  # the model card's count
    assert Shape.of(GPTJConfig()).inner == 16384 and Shape.of(T5_XL).inner == 5120
    assert 2.7e9 < Shape.of(T5_XL).parameters < 2.9e9


@pytest.mark.parametrize("config", [GPTJConfig(), T5_XL, config_of("testbed-gptj"), config_of("testbed-t5")],
                         ids=["gpt-j", "t5-xl", *BUILT_IN])
def test_every_editors_tasks_take_about_a_minute(config):
    shape = Shape.of(config)
    for editor in EDITORS:
        if get_editor(editor).decoder_only and config.is_encoder_decoder:
            continue
        settings = resolve_config(editor, config).model_dump(mode="json")
        seconds = costs.edit_seconds(shape, editor, settings) + costs.score_seconds(shape, editor)
        size = costs.cases_per_task(seconds)
        assert size in costs.SIZES and size * seconds <= costs.TARGET
        assert size == costs.SIZES[-1] or 2.5 * size * seconds >= costs.TARGET


def test_what_is_measured_in_addition_costs():
    shape = Shape.of(GPTJConfig())
    plain = costs.score_seconds(shape, "rome")
    assert costs.score_seconds(shape, "rome", Measures(generation=True)) > plain
    assert costs.score_seconds(shape, "rome", Measures(writing=True)) > plain
    assert costs.patch_seconds(shape) == 0 < costs.patch_seconds(shape, Measures(perplexity=True))
    assert costs.score_seconds(shape, "identity") < plain / 100


def test_a_text_is_cut_into_shards_that_are_worth_writing():
    tiny, large = Shape.of(config_of("testbed-gptj")), Shape.of(GPTJConfig())
    assert costs.shards(tiny, (0, 1, 2, 3), 30_000) == 1
    for shape, layers, tokens in ((tiny, (0, 1, 2, 3), 10**6), (large, (5,), 5 * 10**7), (large, (3, 5, 8), 5 * 10**7)):
        count = costs.shards(shape, layers, tokens)
        each = costs.statistics_seconds(shape, layers, tokens) / count
        written = costs.moments_bytes(shape, layers) / costs.DISK_RATE
        assert count > 10 and each > 0.9 * max(costs.TARGET, 10 * written) and each < 1.1 * max(60, 10 * written)


def test_no_time_limit_trips_a_slow_machine():
    for task in plan_campaign("testbed", None, None).tasks.values():
        node = task.node()
        assert node.cost == task.cost and node.limit >= max(600, 20 * task.cost)
        assert task.node(on_gpu=False) == node  # the reference of small models is a CPU
    large = Shape(6_000_000_000)
    assert costs.time_limit(large, 60, on_gpu=False) > 100 * costs.time_limit(large, 60)


# --- plans


def cut(planned, kind, editor=None):
    """Sizes of a kind's tasks."""
    return [len(task.chunk.cases) for task in planned.tasks.values()
            if task.kind == kind and (editor is None or task.method.editor.name == editor)]


@pytest.fixture
def slow(monkeypatch):
    """A table by which each method's tasks are cut in another way."""
    seconds = {"identity": 6.0, "ft": 12.0, "rome": 60.0}
    monkeypatch.setattr(costs, "score_seconds", lambda shape, editor, measures: seconds[editor])
    monkeypatch.setattr(costs, "edit_seconds", lambda shape, editor, config: 0.0)
    monkeypatch.setattr(costs, "baseline_seconds", lambda shape, measures: 30.0)
    return SimpleNamespace(seconds=seconds)


UNCUT = {"chunk": None, "datasets": [{"name": "testbed-cloze", "limit": 12}]}


def test_each_methods_tasks_are_cut_by_what_they_cost(make_plan, slow):
    planned = make_plan(**UNCUT)
    assert cut(planned, "baseline") == [2] * 6
    assert [cut(planned, "score", editor) for editor in slow.seconds] == [[10, 2], [5, 5, 2], [1] * 12]
    for task in planned.tasks.values():
        if task.kind == "score":
            known = {case.id for baseline in task.baselines for case in baseline.chunk.cases}
            assert {case.id for case in task.chunk.cases} <= known and len(task.baselines) <= 5
    given = make_plan(**{**UNCUT, "chunk": 4})
    assert cut(given, "baseline") == cut(given, "score", "rome") == [4, 4, 4]


def test_rows_do_not_depend_on_how_tasks_are_cut(make_plan, slow, tmp_path, local_pool):
    found = []
    for chunk in (None, 12):
        store = Store.create(tmp_path / f"store{chunk}")
        planned = make_plan(**{**UNCUT, "chunk": chunk})
        assert run_campaign(planned, store, local_pool(store)).failed == 0
        table = store.rows(task.record() for task in planned.tasks.values()).drop_columns(["task"])
        found.append(dict(zip(zip(*(table[name].to_pylist() for name in ("editor", "metric", "case_id")), strict=True),
                              table["value"].to_pylist(), strict=True)))
    assert found[0] == pytest.approx(found[1], abs=1e-4, nan_ok=True)


def test_batches_and_streams_are_cut_by_the_table_too(make_plan, slow):
    planned = make_plan(**UNCUT, editors=["identity"], protocols=[
        {"name": "batch", "sizes": [3, 12]}, {"name": "sequential", "lengths": [1, 12]}])
    sizes = [(task.protocol, task.count, len(task.chunk.cases)) for task in planned.tasks.values()
             if task.kind == "score"]
    assert sizes == [("batch", 3, 9), ("batch", 3, 3), ("batch", 12, 12),
                     ("sequential", 1, 1), ("sequential", 12, 10), ("sequential", 12, 2)]


def test_the_tables_ids_are_the_same_in_every_process(write_campaign):
    path = write_campaign(**UNCUT)
    program = ("import sys, json; from cluster.campaign.file import load_campaign; "
               "from cluster.plan.planner import plan; "
               "print(json.dumps([*(made := plan(load_campaign(sys.argv[1]))).tasks, made.sizes]))")
    other = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)})
    here = plan(load_campaign(path))
    assert json.loads(other.stdout) == [*here.tasks, here.sizes] and here.sizes


def test_a_store_keeps_the_sizes_that_it_was_planned_with(make_plan, slow, tmp_path):
    store = Store.create(tmp_path / "store")
    fields = {**UNCUT, "editors": make_plan().campaign.model_dump(mode="json")["editors"][:2]}
    before = make_plan(**fields)
    store.write_campaign(before.record(datetime.now(UTC)))
    slow.seconds |= {"identity": 30.0, "ft": 60.0, "rome": 20.0}
    assert not set(before.tasks) <= set(make_plan(**fields).tasks)
    again = plan(load_campaign(tmp_path / "small.yaml"), frozen_sizes(store.campaigns()))
    assert list(again.tasks) == list(before.tasks) and again.sizes == before.sizes
    # A campaign that has more to do shares what was cut before, and cuts the rest by the new table.
    make_plan(**UNCUT)
    amended = plan(load_campaign(tmp_path / "small.yaml"), frozen_sizes(store.campaigns()))
    assert set(before.tasks) < set(amended.tasks)
    assert cut(amended, "score", "rome") == [2] * 6


def test_commands_plan_with_the_stores_sizes(write_campaign, slow, tmp_path):
    path = str(write_campaign(**UNCUT))
    before = plan_campaign(path, None, None, tmp_path / "store")
    Store.create(tmp_path / "store").write_campaign(before.record(datetime.now(UTC)))
    slow.seconds |= {"rome": 10.0}
    assert set(plan_campaign(path, None, None).tasks) != set(before.tasks)
    assert set(plan_campaign(path, None, None, tmp_path / "store").tasks) == set(before.tasks)


def test_a_changed_table_has_another_version():
    """Where this fails the table has changed: raise `COSTS_VERSION`, and write down what it cuts now."""
    cuts = {}
    for name, scale in (("quickstart", None), ("table2", "testbed")):
        uncut = load_campaign(find_campaign(name), scale=scale).model_copy(update={"chunk": None})
        planned = plan(uncut)
        cuts[name] = Counter(task.editor_title for task in planned.tasks.values() if task.kind == "score")
    assert costs.COSTS_VERSION == 1
    assert cuts["quickstart"] == {**dict.fromkeys(EDITORS, 1), "kn": 2, "memit": 2, "rome": 4}
    assert cuts["table2"] == {**dict.fromkeys(EDITORS, 2), "memit": 1, "rome": 2}
