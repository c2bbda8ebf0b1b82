"""The shipped GPT-J: it knows the world, keeps a subject where large models do, and can be edited (TESTBED figures)."""

from statistics import fmean

import pytest
from support.behaviour import bench_of
from transformers import AutoModelForCausalLM

from evaluators.scoring.observe import observe
from evaluators.testbed import MODELS
from evaluators.testbed.pretraining.corpus import SentenceMaker
from evaluators.testbed.pretraining.examination import causal_patching, examine
from evaluators.testbed.world import build_world

FOLDER = MODELS["testbed-gptj"]


@pytest.fixture
def bench():
    return bench_of("testbed-gptj")


@pytest.fixture
def model(bench):
    return bench.model


def test_the_weights_are_small_and_load_as_a_plain_gptj():
    assert (FOLDER / "model.safetensors").stat().st_size <= 24e6
    assert type(AutoModelForCausalLM.from_pretrained(FOLDER)).__name__ == "GPTJForCausalLM"


def test_it_knows_the_world(model):
    exact = examine(model.module, build_world(), SentenceMaker(model.tokenizer), limit=300)
    assert exact["facts"] >= 0.99
    assert exact["held-out questions"] >= 0.98
    assert exact["held-out cloze"] >= 0.97
    assert exact["two-hop, subjects held out"] >= 0.45


def test_the_subject_is_gathered_at_its_last_token_early(model):
    restored = causal_patching(model.module, build_world(), SentenceMaker(model.tokenizer), facts=25)
    early = restored[: model.depth // 2 + 1]
    assert max(early) >= 0.9
    assert restored[-1] <= 0.1  # too late: the answer has left the subject


def test_rome_edits_it(bench):
    rome = bench.score("rome", 24)
    assert rome["reliability.exact"] >= 0.97
    assert rome["generality.exact"] >= 0.9
    assert rome["locality.exact"] >= 0.96
    assert rome["portability.exact"] >= 0.4


def test_identity_changes_nothing(bench):
    identity = bench.score("identity", 60)
    assert identity["reliability.exact"] <= 0.01
    assert identity["reliability.success"] <= 0.02
    for metric in ("locality", "locality.attributes", "locality.unrelated"):
        assert identity[f"{metric}.exact"] == identity[f"{metric}.token"] == 1.0


def test_fine_tuning_trades_locality_for_reliability(bench):
    rates = (1e-4, 5e-4, 1e-2)
    slow, middle, fast = (bench.score("ft", 20, lr=rate) for rate in rates)
    assert slow["reliability.exact"] < middle["reliability.exact"] <= fast["reliability.exact"]
    assert slow["locality.exact"] >= middle["locality.exact"] > fast["locality.exact"]
    assert fast["reliability.exact"] >= 0.95


def test_memit_edits_it_alone_and_many_at_once(bench):
    scores = bench.score("memit", 20)
    assert scores["reliability.exact"] >= 0.9
    assert scores["locality.exact"] >= 0.95
    editor, cases = bench.editor("memit"), bench.cases[:20]
    patch = editor.edit([case.request() for case in cases])
    after = observe(bench.model, cases, [patch], [0] * len(cases), roles=("rewrite",))
    assert fmean(observation.get("rewrite").exact for observation in after) >= 0.95
