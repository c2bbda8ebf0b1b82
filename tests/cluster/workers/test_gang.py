"""Gangs of two ranks on CPUs: they say what one process says, and end together."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray
import torch
from safetensors.torch import save_file
from support.families import tiny
from support.processes import titled

import cluster.workers.gang
from cluster.campaign.spec import WorkerSpec
from cluster.driver import run_campaign
from cluster.store.store import ResultKey, Store
from cluster.workers.gang import Gang
from cluster.workers.losses import GangLost, Loss
from cluster.workers.parcels import Packing
from cluster.workers.pool import ray_pool
from cluster.workers.rank import Rank, RankStore
from cluster.workers.runner import TaskResult
from cluster.workers.worker import end_worker, worker_class
from editors import EDITORS, get_editor, resolve_config
from editors.core.editor import Resources
from editors.core.errors import InputError
from editors.core.examples import Example, Question
from editors.core.models.loading import load_model
from editors.core.models.model import LanguageModel
from editors.core.models.statistics import second_moments
from editors.core.patches.overlay import overlay
from editors.core.requests import EditRequest

KINDS = ("tiny_gptj", "tiny_t5", "tiny_gated_t5")
UNEVEN = "tiny_deep_encoder"
REQUESTS = [
    EditRequest("What is the birthplace of Budrer Vadolm?", "Budrer Vadolm", "a long answer of many words", "Vadolm"),
    EditRequest("X lives in", "X", "so", "Paris"),
    EditRequest("Who employs Zed Corman?", "Zed Corman", "Vard and Sons", "Omerga"),
]
PROBES = [("What is the birthplace of Budrer Vadolm?", "a long answer"), ("X lives in", "so"), ("It was", "not so")]
EXAMPLES = [Example(replace(request, target=f"t{number}"), (request.prompt,), (Question("It was", "so"),))
            for number, request in enumerate(REQUESTS * 3)]
SETTINGS = {"layers": [0, 1], "layer": 1, "encoder_layers": [1], "learning_rate": 1e-3, "steps": 4, "batch_size": 2,
            "accumulate": 1, "validate_every": 2, "validation_examples": 2, "patience": 2, "embedding": "output"}


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # ranks cannot import it
    ray.init("local", num_cpus=5, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folders(request, tmp_path_factory):
    """The tiny models as folders, by kind."""
    found = {}
    for kind in (*KINDS, UNEVEN):
        model, found[kind] = request.getfixturevalue(kind), tmp_path_factory.mktemp(kind)
        model.module.save_pretrained(found[kind])
        model.tokenizer.save_pretrained(found[kind])
    return found


class Asked(Rank):
    """A rank that also does what a test asks: `work(model)` on a model of a folder, which it keeps."""

    def ask(self, work, folder, **how):
        from cluster.workers.zero3 import load_sharded, weight_files

        if "nvme" in how:
            how = {"offload": "nvme", "files": weight_files(how["nvme"])}
        if getattr(self, "held", None) != (folder, how):
            self.held, self.model = (folder, how), None
            self.model = load_sharded(folder, **how)
        return work(self.model)


@contextmanager
def gang_of(devices, place, **how):
    made = Gang(Store.create(place / "store").root, WorkerSpec(devices=devices, gpus=0, timeout=60, **how))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.workers.gang, "Rank", Asked)
        made.prepare()
    yield made
    made._end(Loss("the tests are over"))


@pytest.fixture(scope="module")
def gang(tmp_path_factory):
    """One gang for all tests that do it no harm."""
    with gang_of(2, tmp_path_factory.mktemp("gang")) as made:
        yield made


def ask_of(gang, work, folder, **how):
    return ray.get([rank.ask.remote(work, str(folder), **how) for rank in gang._ranks])


@pytest.fixture
def ask(gang):
    """A function that has both ranks do some work on a model; returns both answers."""
    return partial(ask_of, gang)


def logits(model):
    with torch.no_grad():
        return model.target_logits(model.collate([model.encode(*probe) for probe in PROBES]))


def close(left, right, tolerance=1e-5):
    torch.testing.assert_close(left, right, atol=tolerance, rtol=tolerance)


# --- the model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{}, {"dtype": "bfloat16"}], ids=["float32", "bfloat16"])
def test_logits_are_those_of_one_process(ask, folders, kind, how):
    whole = load_model(folders[kind], **how)
    for seen in ask(logits, folders[kind], **how):
        close(seen, logits(whole), 1e-5 if not how else 2e-2)


def test_a_pickled_checkpoint_is_dealt_out(ask, old_t5_folder):
    for seen in ask(logits, old_t5_folder):
        close(seen, logits(load_model(old_t5_folder)))


def edited_logits(model):
    config = resolve_config("rome", model.module.config, {"layer": 1, "steps": 3, "contexts": [], "covariance": False})
    [patch] = get_editor("rome")(model, config).edit_each(REQUESTS[:1])
    with overlay(model, patch):
        return logits(model)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "opt"])
def test_families_are_dealt_out(ask, tmp_path, family):
    """A tied head, weights the other way round, tables made by formula, and an FFN that is no module of its own."""
    tiny(family).module.save_pretrained(tmp_path)
    tiny(family).tokenizer.save_pretrained(tmp_path)
    expected = edited_logits(load_model(tmp_path))
    assert not torch.equal(expected, logits(load_model(tmp_path)))
    for seen in ask(edited_logits, tmp_path):
        close(seen, expected, 1e-4)


def facts(model):
    parameters = list(model.module.parameters())
    with model.weights.whole(model.input_table):
        table = model.input_table.clone()
    return {"held": sum(parameter.ds_tensor.numel() for parameter in parameters),
            "placeholders": {parameter.numel() for parameter in parameters}, "digest": model.digest, "table": table,
            "vocabulary": model.vocabulary, "tied": model.output_table is model.input_table}


@pytest.mark.parametrize("kind", KINDS)
def test_each_rank_holds_half_and_can_read_all(ask, folders, kind):
    whole = load_model(folders[kind])
    total = sum(parameter.numel() for parameter in whole.module.parameters())
    for seen in ask(facts, folders[kind]):
        assert total / 2 <= seen["held"] < total / 2 * 1.02
        assert seen["placeholders"] == {0}
        assert torch.equal(seen["table"], whole.input_table) and seen["vocabulary"] == whole.vocabulary
        assert seen["tied"] == (whole.output_table is whole.input_table) and seen["digest"] == whole.digest


def test_weights_may_stay_in_main_memory(ask, folders):
    for seen in ask(logits, folders["tiny_gptj"], offload="cpu"):
        close(seen, logits(load_model(folders["tiny_gptj"])))


def test_one_rank_alone_keeps_its_weights_in_main_memory(tmp_path, folders):
    """As GPT-J on one device of 32 GB has to."""
    with gang_of(1, tmp_path, offload="cpu") as alone:
        for kind in KINDS:
            [seen] = ask_of(alone, logits, folders[kind], offload="cpu")
            close(seen, logits(load_model(folders[kind])))


def test_weights_may_stay_in_files(ask, tiny_gptj, tmp_path):
    """Compiles something for two or three minutes where it was never run before."""
    if not has_libaio():
        pytest.skip("needs libaio")
    torch.manual_seed(0)
    config = tiny_gptj.module.config
    module = type(tiny_gptj.module)(type(config)(**{**config.to_dict(), "n_embd": 512, "n_inner": 2048, "n_layer": 2}))
    module.save_pretrained(tmp_path / "model")
    tiny_gptj.tokenizer.save_pretrained(tmp_path / "model")
    for seen in ask(logits, tmp_path / "model", nvme=str(tmp_path / "nvme")):
        close(seen, logits(load_model(tmp_path / "model")))
    written = [sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
               for folder in (tmp_path / "nvme").iterdir()]
    large = [weight.nbytes // 2 for weight in module.parameters() if weight.nbytes // 2 >= 1 << 20]  # to DeepSpeed
    assert written == [sum(large)] * 2 and len(large) == 6


def has_libaio():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.ops.op_builder import AsyncIOBuilder

    return AsyncIOBuilder().is_compatible()


def test_without_libaio_a_gang_says_so_at_its_start(tmp_path, monkeypatch):
    monkeypatch.setitem(cluster.workers.gang.ENVIRONMENT, "CC", "false")  # which finds libaio
    store = Store.create(tmp_path / "store")
    gang = Gang(store.root, WorkerSpec(gpus=0, offload="nvme", nvme=str(tmp_path / "weights")))
    with pytest.raises(InputError, match=r"'offload: nvme' needs libaio and a C\+\+ compiler, and host '.*' lacks one: "
                                         r"install libaio-dev .* or take 'offload: cpu'"):
        gang.prepare()
    assert not list((tmp_path / "weights").iterdir()) and not gang._ranks


def test_a_folder_for_weights_that_cannot_be_written_ends_the_command(make_plan, tmp_path):
    (tmp_path / "weights").write_text("a file")
    store, spec = Store.create(tmp_path / "store"), WorkerSpec(offload="nvme", nvme=str(tmp_path / "weights"))
    with pytest.raises(InputError, match=r"'nvme: .*weights' cannot be written on host .* \(File exists\); give a"):
        run_campaign(make_plan(editors=["identity"]), store, lambda: ray_pool(store, spec))


def test_a_dtype_that_a_model_overflows_is_refused(ask, folders):
    with pytest.raises(InputError, match=r"hidden states are too large for float16; take 'dtype: bfloat16'"):
        ask(logits, folders["tiny_t5"], dtype="float16")


def interrupted(model):
    """Whether a weight was left whole by an error in the middle of a module, and after `tidy`."""
    from cluster.workers.zero3 import tidy

    def stop(*_):
        raise ArithmeticError

    down = model.submodule(model.down_path(1))
    hook = down.register_forward_pre_hook(stop)
    try:
        logits(model)
    except ArithmeticError:
        hook.remove()
    whole = [bool(down.weight.numel())]
    tidy(model.module)
    return [*whole, bool(down.weight.numel())], logits(model)


def test_an_error_inside_a_module_leaves_nothing_whole(ask, folders):
    for whole, seen in ask(interrupted, folders["tiny_gptj"]):
        assert whole == [True, False]
        close(seen, logits(load_model(folders["tiny_gptj"])))


# --- editors


def edits(name, model: LanguageModel):
    """What an editor, trained on a few facts where it has to be, makes of the requests: tensors, and logits with every
    patch on."""
    editor = get_editor(name)
    fields = editor.Config.model_fields.keys() - (() if model.has_encoder else {"encoder_layers"})
    wanted = {field: value for field, value in SETTINGS.items() if field in fields}
    config = resolve_config(name, model.module.config, wanted)
    texts = [f"The {word} of {word}s is {word}." for word in ("cat", "dog", "sun", "sea")] * 20
    layers = editor.statistics_layers(config)
    moments = second_moments(model, layers, texts, 1000) if layers else {}
    for moment in moments.values():  # so few different keys are solved with a ridge that rounding decides about
        moment.total.diagonal().add_(0.01 * moment.total.diagonal().mean())
    artefact = editor.train(model, config, EXAMPLES, seed=0) if editor.trained else None
    made = editor(model, config, Resources(moments, artefact)).edit_each(REQUESTS)
    answers = []
    for patch in made:
        with overlay(model, patch):
            answers.append(logits(model))
    terms = [(type(term).__name__, term.module, term.tensors()) for patch in made for term in patch.terms]
    return terms, torch.stack(answers)


CELLS = [(name, kind) for kind in KINDS for name in EDITORS
         if not (get_editor(name).decoder_only and kind != "tiny_gptj")]
CELLS += [(name, UNEVEN) for name in ("ft", "kn", "ke")]


@pytest.mark.parametrize(("name", "kind"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_edits_are_those_of_one_process(ask, folders, name, kind):
    terms, answers = edits(name, load_model(folders[kind]))
    for seen_terms, seen_answers in ask(lambda model: edits(name, model), folders[kind]):
        assert [term[:2] for term in seen_terms] == [term[:2] for term in terms]
        for (*_, seen), (*_, tensors) in zip(seen_terms, terms, strict=True):
            close(seen, tensors, 5e-4)  # training makes more of what sums in another order differ in
        close(seen_answers, answers, 5e-4)


def test_ranks_take_the_room_of_the_one_that_has_least(ask, folders):
    def free(model):
        return model.weights.free(model.device), model.at_once(1000, model.weights.free(model.device) / 100)

    one, other = ask(free, folders["tiny_gptj"])
    assert one == other and one[0] > 0 and one[1] in (32, 64)


# --- campaigns


def test_a_gang_leaves_the_rows_of_a_worker(make_plan, local_pool, tmp_path):
    planned = make_plan(editors=["identity", {"name": "rome", "config": {"layer": 1, "steps": 2, "contexts": [[2, 2]]}},
                                 {"name": "ft", "config": {"layers": [1], "steps": 2}}],
                        protocols=["single", {"name": "sequential", "lengths": [2, 4], "step": 1}])
    rows = []
    alone = make_plan(workers={"count": 1, "devices": 1, "offload": "cpu"}).campaign.workers
    for number, spec in enumerate([None, WorkerSpec(count=1, devices=2, offload="cpu"), alone]):
        store = Store.create(tmp_path / str(number))
        outcome = run_campaign(planned, store, (lambda store=store, spec=spec: ray_pool(store, spec)) if spec
                               else local_pool(store))
        assert outcome.failed == 0 and outcome.done == len(planned.tasks)
        rows.append(store.rows(store.campaigns()[0].tasks).to_pandas())
    first, *others = (torch.tensor(each.pop("value")) for each in rows)
    for seen, values in zip(rows[1:], others, strict=True):
        assert seen.equals(rows[0])
        close(values, first)


def test_a_task_that_fails_on_all_ranks_fails_and_the_gang_goes_on(gang, make_plan):
    [task, *_] = make_plan(editors=["identity"]).tasks.values()
    result = gang.run(replace(task, model=replace(task.model, digest="another")))
    assert result.outcome == "failed" and "has changed since the campaign was planned" in result.detail
    assert gang.run(task).outcome == "done" and gang._store.has(task.key)
    assert gang.run(task).outcome == "done"


def trip(subject, model):
    """Makes rank 0 alone stumble over a case, as it does when the other one dies; None: never again."""
    from editors.identity import Identity

    def edit_each(self, requests):
        if torch.distributed.get_rank() == 0 and any(request.subject == subject for request in requests):
            raise RuntimeError("Connection reset by peer")
        return upright(self, requests)

    upright = getattr(Identity, "upright", Identity.edit_each)
    Identity.upright, Identity.edit_each = upright, edit_each


def test_what_the_ranks_do_not_agree_on_is_not_written(gang, ask, folders, make_plan):
    planned = make_plan(editors=["identity"])
    baseline, score = (next(task for task in planned.tasks.values() if task.kind == kind)
                       for kind in ("baseline", "score"))
    assert gang.run(baseline).outcome == "done"
    ask(partial(trip, score.chunk.cases[0].subject), folders["tiny_gptj"])
    result = gang.run(score)
    ask(partial(trip, None), folders["tiny_gptj"])
    assert result.outcome == "failed" and "came to different results" in result.detail
    assert not gang._store.has(score.key)
    assert gang.run(score).outcome == "done" and gang._store.has(score.key)


def test_only_rank_0_writes_and_all_start_from_one_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    store = Store.create(tmp_path / "store")
    key = ResultKey("artefacts", "a" * 24)
    with store.checkpoint(key) as (path, _):
        path.write_bytes(b"half way")
    agreed = []
    first, second = (RankStore(store, agreed.append, writes=writes) for writes in (True, False))
    for rank in (first, second):
        rank.begin(key)
    assert len(list((tmp_path / "temporary").iterdir())) == 1  # for the checkpoint that was found
    with store.checkpoint(key) as (path, _):
        path.unlink()
    with first.checkpoint(key) as (one, _), second.checkpoint(key) as (other, _):
        assert other.read_bytes() == b"half way" and not one.exists()
    for rank, there in ((second, False), (first, True)):
        with rank.new_artefact(key, {}) as path:
            save_file({"x": torch.zeros(1)}, path)
        assert store.has(key) == there
    assert not first.has(key)
    assert not list((tmp_path / "temporary").iterdir())
    assert agreed == [{"x": [1]}] * 2


# --- ends


def free_cpus():
    return ray.available_resources().get("CPU", 0)


def eventually(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


SPEC = WorkerSpec(devices=2, gpus=0, timeout=8)


@pytest.fixture
def led(make_plan, tmp_path):
    """A gang under a worker actor, as a campaign has it, up and with ranks of its own; and a task for it."""
    before = set(titled("ray::Rank"))
    store = Store.create(tmp_path / "store")
    actor, options = worker_class(SPEC)
    worker = actor.options(**options).remote(store.root, SPEC)
    try:
        ray.get(worker.ready.remote())
        ranks = sorted(set(titled("ray::Rank")) - before)
        assert len(ranks) == 2
        parcel = Packing(ray.put).pack(next(iter(make_plan(editors=["identity"]).tasks.values())))
        yield worker, ranks, (parcel.task, 1, *parcel.cases)
    finally:
        end_worker(worker, SPEC)


def gone(ranks):
    return lambda: not any(Path(f"/proc/{rank}").exists() for rank in ranks)


def test_the_death_of_a_rank_ends_the_gang_within_seconds(led):
    worker, ranks, task = led
    running = worker.run.remote(*task)
    os.kill(ranks[1], signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(ray.exceptions.RayError, match="is lost"):
        ray.get(running)
    assert time.monotonic() - started < 10
    eventually(gone(ranks))
    with pytest.raises(ray.exceptions.RayError, match="is lost"):  # what is queued does not run on
        ray.get(worker.run.remote(*task))


def test_a_rank_that_hangs_ends_the_gang_in_time(make_plan, tmp_path):
    before = set(titled("ray::Rank"))
    gang = Gang(Store.create(tmp_path / "store").root, WorkerSpec(devices=2, gpus=0, timeout=5))
    gang.prepare()
    ranks = sorted(set(titled("ray::Rank")) - before)
    os.kill(ranks[1], signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(GangLost, match=r"did not answer within 5 s|is lost"):
        gang.run(next(iter(make_plan(editors=["identity"]).tasks.values())))
    assert time.monotonic() - started < 30
    eventually(gone(ranks))


def test_ranks_die_with_who_leads_them(led):
    worker, ranks, _ = led
    ray.kill(worker)
    eventually(gone(ranks))
    taken = free_cpus()
    end_worker(worker, SPEC)
    eventually(lambda: free_cpus() == taken + 2)


def test_a_gang_without_room_is_an_error_after_a_time(tmp_path):
    store = Store.create(tmp_path / "store")
    gang = Gang(store.root, WorkerSpec(devices=3, cpus=2, placement_timeout=1))
    with pytest.raises(InputError, match=r"no room for a gang of 3 ranks with 2 CPUs and 0 GPUs each within 1 s; the "
                                         r"cluster has 5 CPUs .* on 1 nodes"):
        gang.prepare()


@pytest.mark.parametrize("outcome", ["failed", "out of memory"])
def test_ranks_that_fare_differently_are_no_gang_any_more(tmp_path, monkeypatch, make_plan, outcome):
    gang = Gang(Store.create(tmp_path / "store").root, WorkerSpec(devices=2))
    [task, *_] = make_plan(editors=["identity"]).tasks.values()
    monkeypatch.setattr(gang, "_all", lambda *_: [TaskResult("done"), TaskResult(outcome, detail="too large")])
    if outcome == "out of memory":  # which is worth knowing
        assert gang.run(task).detail == "too large"
    with pytest.raises(GangLost, match=f"(?s)fell out of step.*rank 1: {outcome} too large"):
        gang.run(task)


@pytest.mark.parametrize("fields", [{"offload": "nvme"}, {"nvme": "/tmp"}])
def test_a_folder_for_weights_goes_with_nvme(fields):
    with pytest.raises(ValueError, match="go together"):
        WorkerSpec(**fields)
