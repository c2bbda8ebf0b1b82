"""Teacher-forced scores on the built-in models against the library's own generation and loss."""

import pytest
import torch

from editors.core.models.loading import load_model
from evaluators.models import model_path
from evaluators.scoring.decoding import Decoding, generate
from evaluators.scoring.observe import observe, questions
from evaluators.testbed.cases import testbed_cases as built_in_cases

CASES = 20


@pytest.fixture(scope="module", params=[("testbed-gptj", "cloze"), ("testbed-t5", "question")],
                ids=["testbed-gptj", "testbed-t5"])
def known(request):
    """A built-in model, and some cases that it can read."""
    name, flavour = request.param
    return load_model(model_path(name)), built_in_cases(flavour, "eval")[:CASES]


def test_exact_is_what_generate_writes(known):
    model, cases = known
    checked = {True: 0, False: 0}
    for case, observation in zip(cases, observe(model, cases, [], [-1] * CASES), strict=True):
        for key, encoded in questions(model, case).items():
            if key.role in ("rewrite", "neighbourhood") and key.which == "answer":
                (text,) = generate(model, [encoded], Decoding(len(encoded.target)))
                written = model.tokenizer.decode(encoded.target) == text
                assert observation.outputs[key].exact == written
                checked[written] += 1
    assert min(checked.values()) >= CASES - 1  # edits are not known yet, neighbours are


def test_probability_is_the_librarys_loss(known):
    model, cases = known
    for case, observation in zip(cases, observe(model, cases, [], [-1] * CASES), strict=True):
        encoded = questions(model, case)[next(iter(observation.outputs))]
        if model.has_encoder:
            inputs, labels = encoded.prompt, encoded.target
        else:
            inputs = encoded.prompt + encoded.target
            labels = (-100,) * len(encoded.prompt) + encoded.target
        loss = model.module(input_ids=torch.tensor([inputs]), labels=torch.tensor([labels])).loss
        assert -next(iter(observation.outputs.values())).mean_logprob == pytest.approx(float(loss), rel=1e-3, abs=1e-4)


def test_the_decoder_reads_targets_shifted_right(known):
    """A decoder that is fed the targets themselves, as EasyEdit's first T5 scorer did, sees what it has to predict."""
    model, cases = known
    if not model.has_encoder:
        pytest.skip("a decoder-only model has nothing to shift")
    differ = 0
    for case, observation in zip(cases, observe(model, cases, [], [-1] * CASES), strict=True):
        key, encoded = max(questions(model, case).items(), key=lambda asked: len(asked[1].target))
        ids, target = torch.tensor([encoded.prompt]), torch.tensor([encoded.target])
        shifted = model.module(input_ids=ids, labels=target).logits.argmax(-1)[0].tolist()
        unshifted = model.module(input_ids=ids, decoder_input_ids=target).logits.argmax(-1)[0].tolist()
        assert list(observation.outputs[key].predicted) == shifted
        differ += unshifted != shifted
    assert differ >= CASES // 2
