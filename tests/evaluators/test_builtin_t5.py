"""The shipped T5: it knows the world's questions, and it can be edited."""

from __future__ import annotations

from statistics import fmean

import pytest
from transformers import AutoModelForSeq2SeqLM

from editors.core.loading import load_model
from evaluators.testbed import MODELS
from evaluators.testbed.cases import testbed_cases as cases_of  # a name that pytest does not collect
from evaluators.testbed.corpus import SentenceMaker
from evaluators.testbed.examination import examine
from evaluators.testbed.world import build_world
from tests.evaluators.behaviour import Bench

FOLDER = MODELS["testbed-t5"]


@pytest.fixture(scope="module")
def model():
    return load_model(FOLDER, name="testbed-t5")


def test_the_weights_are_small_and_load_as_a_plain_t5_with_a_head_of_its_own():
    assert (FOLDER / "model.safetensors").stat().st_size <= 24e6
    module = AutoModelForSeq2SeqLM.from_pretrained(FOLDER)
    assert type(module).__name__ == "T5ForConditionalGeneration"
    assert module.lm_head.weight is not module.shared.weight
    assert module.encoder.embed_tokens.weight is module.shared.weight


def test_it_knows_the_world(model):
    exact = examine(model.module, build_world(), SentenceMaker(model.tokenizer), limit=600)
    assert exact["facts"] >= 0.97
    assert exact["held-out questions"] >= 0.95
    assert exact["two-hop, subjects held out"] >= 0.2


def test_greedy_decoding_yields_answers_and_ends(model):
    """What teacher forcing calls right, `generate` writes, and stops."""
    cases = cases_of("question", "eval")[:20]
    ids = model.collate([model.encode(case.prompt) for case in cases]).source
    written = model.module.generate(input_ids=ids.input_ids, attention_mask=ids.attention_mask, max_new_tokens=12)
    answers = [text.strip() for text in model.tokenizer.batch_decode(written, skip_special_tokens=True)]
    assert fmean(answer == case.target_true for answer, case in zip(answers, cases, strict=True)) >= 0.95


@pytest.fixture(scope="module")
def bench(model):
    return Bench(model, "question", 50)


def test_fine_tuning_edits_it_and_harms_its_neighbours(bench):
    scores = bench.score("ft", 50)
    assert scores["reliability.exact"] >= 0.9 and scores["generality.exact"] >= 0.85
    assert scores["locality.exact"] <= 0.95


def test_t_patcher_edits_it(bench):
    scores = bench.score("t-patcher", 30)
    assert scores["reliability.exact"] >= 0.8
    assert scores["locality.exact"] >= 0.85


def test_calinet_learns_the_edit_and_fires_on_its_neighbours(bench):
    scores = bench.score("calinet", 20)
    assert scores["reliability.exact"] >= 0.95
    assert scores["locality.exact"] <= 0.9


def test_kn_harms_more_than_it_edits(bench):
    scores = bench.score("kn", 20)
    assert 0.1 <= scores["reliability.exact"] <= 0.7
    assert scores["locality.exact"] <= 0.5


def test_serac_answers_what_lies_in_scope_and_nothing_else(bench):
    scores = bench.score("serac", 60)
    assert scores["reliability.exact"] >= 0.95 and scores["generality.exact"] >= 0.95
    assert scores["locality.exact"] >= 0.95


def test_mend_edits_it(bench):
    scores = bench.score("mend", 60)
    assert scores["reliability.exact"] >= 0.8 and scores["generality.exact"] >= 0.75
    assert scores["locality.exact"] >= 0.7 and scores["locality.unrelated.exact"] >= 0.95


def test_ke_edits_it(bench):
    scores = bench.score("ke", 60)
    assert scores["reliability.exact"] >= 0.6
    assert scores["locality.exact"] >= 0.7 and scores["locality.unrelated.exact"] >= 0.95
