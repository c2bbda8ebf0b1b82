"""The shipped T5: it knows the world's questions, and it can be edited."""

from __future__ import annotations

from statistics import fmean

import pytest
from support.behaviour import bench_of
from transformers import AutoModelForSeq2SeqLM

from evaluators.testbed import MODELS
from evaluators.testbed.cases import testbed_cases as cases_of  # a name that pytest does not collect
from evaluators.testbed.pretraining.corpus import SentenceMaker
from evaluators.testbed.pretraining.examination import examine
from evaluators.testbed.world import build_world

FOLDER = MODELS["testbed-t5"]


@pytest.fixture
def bench():
    return bench_of("testbed-t5")


@pytest.fixture
def model(bench):
    return bench.model


def test_the_weights_are_small_and_load_as_a_plain_t5_with_a_head_of_its_own():
    assert (FOLDER / "model.safetensors").stat().st_size <= 24e6
    module = AutoModelForSeq2SeqLM.from_pretrained(FOLDER)
    assert type(module).__name__ == "T5ForConditionalGeneration"
    assert module.lm_head.weight is not module.shared.weight
    assert module.encoder.embed_tokens.weight is module.shared.weight


def test_it_knows_the_world(model):
    exact = examine(model.module, build_world(), SentenceMaker(model.tokenizer), limit=300)
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


def test_fine_tuning_edits_it_and_harms_its_neighbours(bench):
    scores = bench.score("ft", 50)
    assert scores["reliability.exact"] >= 0.9 and scores["generality.exact"] >= 0.85
    assert scores["locality.exact"] <= 0.95
