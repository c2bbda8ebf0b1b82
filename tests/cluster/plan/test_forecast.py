"""How long a plan will take, and where its models fit."""

from __future__ import annotations

import pytest
from transformers import GPTJConfig, T5Config

from cluster.campaign.spec import WorkerSpec
from cluster.driver import run_campaign
from cluster.plan.forecast import forecast
from cluster.plan.memory import Memory, memory_of, needs_of
from cluster.plan.refs import ModelRef
from cluster.plan.tasks import StatisticsTask
from cluster.store.store import Store
from editors.core.memory import ANSWER, GIB, KEPT_STATES, PROMPT, Bytes
from editors.core.models.architectures import Shape
from jobs.console import plan_campaign

EDITORS = ["identity", {"name": "ft", "config": {"layers": [1], "steps": 2}}]


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def of_kind(planned, kind):
    return [task for task in planned.tasks.values() if task.kind == kind]


def test_without_results_the_table_tells(make_plan):
    planned = make_plan()
    told = forecast(planned.tasks)
    assert told.seconds == {task.id: task.cost for task in planned.tasks.values()} and not told.measured
    assert told.hours() == pytest.approx(sum(task.cost for task in planned.tasks.values()) / 3600)
    rome = next(task for task in of_kind(planned, "score") if task.method.editor.name == "rome")
    before = max(planned.tasks[need].cost for need in rome.needs)
    assert told.chain == pytest.approx(rome.cost + before) == pytest.approx(3600 * told.hours(10**6))


def test_past_results_tell_what_like_ones_will_take(make_plan, store, local_pool):
    run_campaign(make_plan(editors=EDITORS), store, local_pool(store))
    planned = make_plan(datasets=[{"name": "testbed-cloze", "limit": 7}])
    done = store.done(task.key for task in planned.tasks.values())
    told = forecast(planned.tasks, done, store)
    assert told.seconds.keys() == planned.tasks.keys() - done and len(done) == 6
    left = [task for task in planned.tasks.values() if task.id in told.seconds]
    assert {task.id for task in left if task.kind == "baseline" or (
        task.kind == "score" and task.method.editor.name != "rome")} == told.measured
    spent = [store.provenance(task.key) for task in of_kind(make_plan(editors=EDITORS), "score")
             if task.method.editor.name == "ft"]
    each = sum(found["seconds_edit"] + found["seconds_score"] for found in spent) / 4
    for task in left:
        if task.kind == "score" and task.method.editor.name == "ft":
            assert told.seconds[task.id] == pytest.approx(each * len(task.chunk.cases))
        if task.id not in told.measured:
            assert told.seconds[task.id] == task.cost


def test_past_results_on_other_threads_tell_nothing(make_plan, store, local_pool):
    two, limit = {"cpus": 2, "threads": 2}, [{"name": "testbed-cloze", "limit": 5}]
    run_campaign(make_plan(editors=EDITORS, workers=two), store, local_pool(store))
    assert len(forecast(make_plan(editors=EDITORS, workers=two, datasets=limit).tasks, (), store).measured) == 9
    assert not forecast(make_plan(editors=EDITORS, datasets=limit).tasks, (), store).measured


@pytest.mark.parametrize("change", [
    {"measures": {"generation": {"tokens": 2}}}, {"protocols": [{"name": "batch", "sizes": [2]}]},
    {"editors": [{"name": "ft", "config": {"layers": [1], "steps": 3}}]}])
def test_other_work_tells_nothing(make_plan, store, local_pool, change):
    run_campaign(make_plan(editors=EDITORS[1:]), store, local_pool(store))
    planned = make_plan(**{"editors": EDITORS[1:], **change})
    told = forecast(planned.tasks, (), store)
    assert not told.measured & {task.id for task in of_kind(planned, "score")}


def test_statistics_are_told_by_their_tokens_and_streams_by_their_cases(make_plan, store, local_pool):
    fields = {"editors": [{"name": "rome", "config": {"layer": 1, "steps": 2, "contexts": [[2, 2]]}}],
              "protocols": [{"name": "sequential", "lengths": [2]}]}
    before = make_plan(**fields)
    run_campaign(before, store, local_pool(store))
    fields["protocols"][0]["lengths"] = [2, 4]
    planned = make_plan(**fields, statistics={"tokens": 2000})
    told = forecast(planned.tasks, (), store)
    for kind in ("statistics", "stream"):
        [made], task = of_kind(before, kind), of_kind(planned, kind)[-1]
        assert task.id != made.id and task.id in told.measured
        about = store.provenance(made.key)
        factor = 2000 / about["tokens"] if kind == "statistics" else 1
        assert told.seconds[task.id] == pytest.approx(factor * about["seconds"])


def test_a_streams_edits_are_no_part_of_its_scores(make_plan, store, local_pool):
    fields = {"editors": EDITORS[1:], "protocols": [{"name": "sequential", "lengths": [2, 4]}]}
    planned = make_plan(**fields)
    run_campaign(planned, store, local_pool(store))
    scores = of_kind(planned, "score")
    told = forecast(planned.tasks, (), store)
    spent = [store.provenance(task.key) for task in scores]
    each = sum(found["seconds_score"] for found in spent) / sum(found["cases"] for found in spent)
    assert all(told.seconds[task.id] == pytest.approx(2 * each) for task in scores)


# --- memory

NEED = Memory(weights=24 * GIB, block=2 * GIB, held=GIB, work=2 * GIB)


@pytest.mark.parametrize(("memory", "place"), [
    (31, "one device"), (30, "gang of 2 (devices: 2)"), (14, "gang of 4 (devices: 4)"), (10, "gang of 8 (devices: 8)"),
    (7, "offload (offload: cpu)"), (6, "nowhere: without the weights it needs more than a device has")])
def test_a_model_is_placed_where_it_fits(memory, place):
    assert NEED.placement(memory) == place


def test_workers_too_small_for_a_model_are_told():
    assert NEED.complaint("gpt-j", WorkerSpec()) is None  # 32 GiB
    assert NEED.complaint("gpt-j", WorkerSpec(memory=20)) == (
        "gpt-j needs about 28 GiB on each device of a worker, and there are 20 (workers: devices 1, offload none); "
        "what would hold it: gang of 2 (devices: 2)")
    assert NEED.complaint("gpt-j", WorkerSpec(memory=16, devices=4)) is None
    assert NEED.complaint("gpt-j", WorkerSpec(memory=7, offload="cpu")) is None
    assert NEED.complaint("gpt-j", WorkerSpec(memory=6, offload="cpu"))


def test_weights_and_moments_are_counted_in_their_types():
    def need(dtype, *layers):
        model = ModelRef("gpt-j", "digest", dtype, Shape.of(GPTJConfig()))
        tasks = [StatisticsTask("moments", model, layers, "text", "digest", 1000)] if layers else []
        return memory_of(model, tasks)

    half, single = need("float16"), need("float32")
    assert half.weights == 2 * 6_050_882_784 and single.weights == 2 * half.weights
    assert half.held == single.held == 0
    one, six = need("float16", 5), need("float16", 3, 4, 5, 6, 7, 8)
    assert six.held - one.held == 5 * 8 * 16384**2
    assert half.placement(32) == "one device" and half.placement(12).startswith("gang of 2")


def test_the_deeper_stack_decides_what_a_pass_keeps():
    deep = {"d_model": 512, "d_ff": 1024, "vocab_size": 100}
    encoder, decoder, even = (memory_of(ModelRef("t5", "digest", "float32", Shape.of(T5Config(
        num_layers=layers[0], num_decoder_layers=layers[1], **deep))), []) for layers in ((12, 2), (2, 12), (12, 12)))
    assert encoder.work == decoder.work == even.work
    assert encoder.block < decoder.block < even.block  # a decoder's block is larger, by its second attention


def test_the_task_that_needs_most_counts(make_plan):
    memit = {"name": "memit", "config": {"layers": [0, 1], "contexts": [[2, 2]]}}
    planned = make_plan(editors=[*EDITORS, memit], protocols=["single", {"name": "batch", "sizes": [4]}],
                        statistics={"tokens": 500})
    [model], tasks = planned.models.values(), list(planned.tasks.values())
    of = Bytes(model.shape, 4)
    each = {task.id: needs_of(task, of) for task in tasks}
    told = memory_of(model, tasks)
    questions = 1024 * of.asked(ANSWER / PROMPT)
    most = max(needs.held + max(needs.loading, needs.edit, needs.each, questions) for needs in each.values())
    assert told.held + told.work == pytest.approx(most + KEPT_STATES, abs=2) and told.weights == of.weights
    [moments] = [each[task.id] for task in tasks if task.kind == "statistics"]
    assert moments.held == 2 * of.moment == 2 * 8 * 64**2
    joint, alone = ({each[task.id].each for task in tasks if task.kind == "score" and task.protocol.name == name
                     and task.method.editor.name == "memit"} for name in ("batch", "single"))
    assert max(joint) > max(alone)  # a patch of four facts
    assert memory_of(model, []).held == 0 and memory_of(model, []).work == int(questions) + KEPT_STATES


def test_it_is_about_what_the_built_in_models_took():
    """Their workers' peak was 1.0 to 1.3 GiB on the GPT-J and 0.7 to 1.0 GiB on the T5, with single edits."""
    planned = plan_campaign("table2", "testbed", None)
    for model, peak in (("gpt-j", 1.2), ("t5-xl", 0.85)):
        told = memory_of(planned.models[model], planned.tasks.values()).on_each() / GIB
        assert peak / 2 < told < 2 * peak
