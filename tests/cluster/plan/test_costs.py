"""What tasks cost by the table and the methods, and that nothing of it is in what a task holds."""

from __future__ import annotations

import pytest
from transformers import GPTJConfig, T5Config

from cluster.driver import run_campaign
from cluster.plan import costs
from cluster.store.store import Store
from editors import resolve_config
from editors.core.models.architectures import Shape
from editors.core.models.loading import load_config, load_model
from evaluators.models import model_path
from evaluators.scoring.measures import Measures
from jobs.console import plan_campaign

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


def test_what_is_measured_in_addition_costs():
    shape = Shape.of(GPTJConfig())
    plain = costs.score_seconds(shape, "rome")
    assert costs.score_seconds(shape, "rome", Measures.parse({"generation": True})) > plain
    assert costs.score_seconds(shape, "rome", Measures.parse({"fluency": True})) > plain
    assert costs.patch_seconds(shape) == 0 < costs.patch_seconds(shape, Measures.parse({"perplexity": True}))
    assert costs.score_seconds(shape, "identity") < plain / 100


def test_no_time_limit_trips_a_slow_machine():
    for task in plan_campaign("testbed", None, None).tasks.values():
        node = task.node()
        assert node.cost == task.cost and node.limit >= max(600, 20 * task.cost)
        assert task.node(on_gpu=False) == node  # the reference of small models is a CPU
    large = Shape(6_000_000_000)
    assert costs.time_limit(large, 60, on_gpu=False) > 100 * costs.time_limit(large, 60)


# --- how tasks are cut


TWELVE = {"datasets": [{"name": "testbed-cloze", "limit": 12}]}


def test_no_id_hangs_on_what_tasks_cost(make_plan, monkeypatch):
    before = make_plan(**TWELVE)
    for name in ("edit_seconds", "baseline_seconds", "score_seconds", "statistics_seconds"):
        monkeypatch.setattr(costs, name, lambda *args: 12345.0)
    after = make_plan(**TWELVE)
    assert list(after.tasks) == list(before.tasks)
    assert all(task.cost > 12345 for task in after.tasks.values() if task.kind == "score")


def test_rows_do_not_depend_on_how_tasks_are_cut(make_plan, tmp_path, local_pool):
    found = []
    for chunk in (5, 12):
        store = Store.create(tmp_path / f"store{chunk}")
        planned = make_plan(**TWELVE, chunk=chunk)
        assert run_campaign(planned, store, local_pool(store)).failed == 0
        table = store.rows(task.record() for task in planned.tasks.values()).drop_columns(["task"])
        found.append(dict(zip(zip(*(table[name].to_pylist() for name in ("editor", "metric", "case_id")), strict=True),
                              table["value"].to_pylist(), strict=True)))
    assert found[0] == pytest.approx(found[1], abs=1e-4, nan_ok=True)


def test_batches_stay_whole_and_streams_are_cut(make_plan):
    planned = make_plan(**TWELVE, chunk=10, editors=["identity"], protocols=[
        {"name": "batch", "sizes": [3, 12]}, {"name": "sequential", "lengths": [1, 12]}])
    sizes = [(task.protocol.name, task.count, len(task.chunk.cases)) for task in planned.tasks.values()
             if task.kind == "score"]
    assert sizes == [("batch", 3, 9), ("batch", 3, 3), ("batch", 12, 12),
                     ("sequential", 1, 1), ("sequential", 12, 10), ("sequential", 12, 2)]
    for task in planned.tasks.values():
        if task.kind == "score":
            known = {case.id for baseline in task.baselines for case in baseline.chunk.cases}
            assert {case.id for case in task.chunk.cases} <= known and len(task.baselines) <= 2
