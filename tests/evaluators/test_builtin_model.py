"""The shipped GPT-J: it knows the world, keeps a subject where large models do, and can be edited (TESTBED figures)."""

from statistics import fmean

import pytest
from transformers import AutoModelForCausalLM

from editors import get_editor, resolve_config
from editors.base import Resources
from editors.core.loading import load_model
from editors.core.statistics import second_moments
from evaluators.datasets import corpus
from evaluators.protocols import baseline, single
from evaluators.testbed import MODELS
from evaluators.testbed.cases import testbed_cases as cases_of  # a name that pytest does not collect
from evaluators.testbed.corpus import SentenceMaker
from evaluators.testbed.examination import causal_patching, examine
from evaluators.testbed.world import build_world

FOLDER = MODELS["testbed-gptj"]


@pytest.fixture(scope="module")
def model():
    return load_model(FOLDER, name="testbed-gptj")


@pytest.fixture(scope="module")
def scored(model):
    """A function from editor settings to mean scores over the first cases; the model's own outputs are taken once."""
    cases = cases_of("cloze", "eval")[:200]
    before, failed = baseline(model, cases)
    assert not failed
    cache = {}

    def score(name, limit=200, **overrides):
        key = (name, limit, *sorted(overrides.items()))
        if key not in cache:
            editor, config = get_editor(name), resolve_config(name, model.module.config, overrides)
            layers = editor.statistics_layers(config)
            moments = second_moments(model, layers, corpus("testbed"), 20_000) if layers else {}
            result = single(editor(model, config, Resources(moments)), cases[:limit], before[:limit])
            assert not result.failed
            cache[key] = {metric: fmean(s.value for s in result.scores if s.metric == metric)
                          for metric in {s.metric for s in result.scores}}
        return cache[key]

    return score


def test_the_weights_are_small_and_load_as_a_plain_gptj():
    assert (FOLDER / "model.safetensors").stat().st_size <= 24e6
    assert type(AutoModelForCausalLM.from_pretrained(FOLDER)).__name__ == "GPTJForCausalLM"


def test_it_knows_the_world(model):
    exact = examine(model.module, build_world(), SentenceMaker(model.tokenizer), limit=600)
    assert exact["facts"] >= 0.995
    assert exact["held-out questions"] >= 0.99
    assert exact["held-out cloze"] >= 0.97
    assert exact["two-hop, subjects held out"] >= 0.45


def test_the_subject_is_gathered_at_its_last_token_early(model):
    restored = causal_patching(model.module, build_world(), SentenceMaker(model.tokenizer), facts=50)
    early = restored[: model.depth // 2 + 1]
    assert max(early) >= 0.9
    assert restored[-1] <= 0.1  # too late: the answer has left the subject


def test_rome_edits_it(scored):
    rome = scored("rome")
    assert rome["reliability.exact"] >= 0.99
    assert rome["generality.exact"] >= 0.95
    assert rome["locality.exact"] >= 0.98
    assert rome["portability.exact"] >= 0.5


def test_identity_changes_nothing(scored):
    identity = scored("identity")
    assert identity["reliability.exact"] <= 0.01
    assert identity["reliability.success"] <= 0.02
    for metric in ("locality", "locality.attributes", "locality.unrelated"):
        assert identity[f"{metric}.exact"] == identity[f"{metric}.token"] == 1.0


def test_fine_tuning_trades_locality_for_reliability(scored):
    rates = (1e-4, 5e-4, 1e-2)
    slow, middle, fast = (scored("ft", 40, lr=rate) for rate in rates)
    assert slow["reliability.exact"] < middle["reliability.exact"] <= fast["reliability.exact"]
    assert slow["locality.exact"] >= middle["locality.exact"] > fast["locality.exact"]
    assert fast["reliability.exact"] >= 0.95
