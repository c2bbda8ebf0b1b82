"""No result of a case depends on which others are edited and asked beside it, how many, and in which order."""

import random

import pytest
import torch
from support.protocols import single

from editors.core.editor import Editor, EditorConfig
from editors.core.models.loading import load_model
from editors.core.patches.patch import LowRank, Patch
from evaluators.cases import Case, Probe
from evaluators.models import model_path
from evaluators.scoring.judge import baseline
from evaluators.scoring.measures import Measures
from evaluators.scoring.measures import generation as generating
from evaluators.scoring.measures.distracting import Distracting
from evaluators.scoring.measures.divergence import Divergence
from evaluators.scoring.measures.fluency import Fluency
from evaluators.scoring.measures.generation import Generation
from evaluators.scoring.measures.perplexity import Perplexity
from evaluators.testbed.cases import testbed_cases as built_in_cases

MEASURES = Measures((Divergence(), Distracting(), Generation(tokens=12), Fluency(tokens=24),
                     Perplexity(sample=("The city of Vadolm lies in Fuzoia.", "Art plays golf."))))
COMPANIES = 3


class Stirring(Editor):
    """Changes the model at random, by the request alone."""

    name, version = "stirring", 1

    def edit_each(self, requests):
        path = self.model.down_path(1)
        weight = self.model.submodule(path).weight
        patches = []
        for request in requests:
            generator = torch.Generator().manual_seed(len(request.prompt) + len(request.target))
            rank = 1 + len(request.prompt) % 3
            left, right = (torch.randn(width, rank, generator=generator) for width in weight.shape)
            patches.append(Patch((LowRank(path, left, right / right.shape[0] ** 0.5),)))
        return patches


def odd_cases():
    """Long beside short: some fill most of a small model's 128 positions, or all but two."""
    lengths = {"tiny": 0, "middling": 40, "long": 95, "brimful": 124}
    for name, length in lengths.items():
        prompt = "A" + "X" * length
        yield Case(id=name, subject="A", prompt=prompt, target_new="x", target_true="y",
                   paraphrases=("A is" + "X" * (length // 2),),
                   neighbourhood=(Probe(prompt="B" + "X" * length, target="y"),) if length < 50 else (),
                   generation_prompts=("A went",))


def rows(model, cases):
    before, _ = baseline(model, cases, MEASURES.of_baseline)
    result = single(Stirring(model, EditorConfig()), cases, before, MEASURES)
    assert not result.failed
    return {(each.case_id, each.metric): (each.value, each.texts) for each in result.scores}


@pytest.mark.parametrize("kind", ["tiny_gptj", "tiny_t5", "testbed-gptj", "testbed-t5"])
def test_a_case_is_alone_in_any_company(kind, cases, request, monkeypatch):
    if kind.startswith("tiny"):
        model, asked = request.getfixturevalue(kind), [*cases, *odd_cases()]
    else:
        model = load_model(model_path(kind))
        flavour = "question" if model.has_encoder else "cloze"
        asked = [*built_in_cases(flavour, "eval")[:3], *list(odd_cases())[:2 if model.has_encoder else 1]]
    alone = {}
    for case in asked:
        alone |= rows(model, [case])
    assert any(texts for _, texts in alone.values())
    draw = random.Random(5)
    for _ in range(COMPANIES):
        monkeypatch.setitem(generating.BATCH_ROWS, "cpu", draw.randint(1, 64))
        company = draw.sample(asked, draw.randint(2, len(asked)))
        together = rows(model, company)
        names = {case.id for case in company}
        assert together.keys() == {key for key in alone if key[0] in names}
        for key, (value, texts) in together.items():
            assert texts == alone[key][1], key
            assert value == pytest.approx(alone[key][0], rel=1e-4, abs=1e-4), key
