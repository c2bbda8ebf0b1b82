"""KE: its low-rank patch is the dense formula, its condition is read as a sequence, and it learns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from support.hyper_examples import EXAMPLES, REQUESTS, close
from torch import nn

from editors.core.editor import Resources
from editors.core.methods.hyper_editor import HyperTrainee
from editors.core.methods.hypernetwork import Matrix, patches
from editors.core.models.weights import Weights
from editors.core.requests import EditRequest
from editors.ke import KE, KEConfig, KENetwork, with_answers


def config_for(model, **overrides):
    settings = {"layers": (1, 2), "encoder_layers": (1,) if model.has_encoder else (), "steps": 1, "batch_size": 4,
                "learning_rate": 1e-12, "lstm_width": 6, "condition_width": 10, "hidden_width": 7,
                "validation_examples": 2, "validate_every": 5}
    return KEConfig(**{**settings, **overrides})


def trainee_for(model, **overrides):
    config = config_for(model, **overrides)
    torch.manual_seed(0)
    return HyperTrainee(model, config, KE.build(model, config))


def test_the_patch_is_the_dense_formula(model):
    trainee = trainee_for(model, max_scale=3.0)
    network, requests = trainee.module, with_answers(model, REQUESTS)
    factors = trainee.factors(requests)
    made = patches(network(factors, requests), {})
    for number, request in enumerate(requests):
        condition = network.read([request])[0]
        for matrix, conditioner, term in zip(network.matrices, network.conditioners, made[number].terms, strict=True):
            x, grad, real = (part[number] for part in factors[matrix.path])
            out = conditioner(condition)
            i, o = matrix.inputs, matrix.outputs
            col_a, row_a, col_b, row_b, eta = out[:i], out[i: i + o], out[i + o: 2 * i + o], out[2 * i + o: -1], out[-1]
            gate, shift = (torch.outer(row.softmax(0), col) for row, col in ((row_a, col_a), (row_b, col_b)))
            gradient = sum(torch.outer(grad[t], x[t]) for t in range(len(x)))
            dense = 3.0 * torch.sigmoid(eta) * (gradient * gate + shift)
            close(term.a @ term.b.T, dense, 1e-6)
            assert term.a.shape[1] == int(real.sum()) + 1


def test_a_condition_does_not_see_its_neighbours_padding(model):
    network = trainee_for(model).module
    requests = with_answers(model, REQUESTS)
    together = network.read(requests)
    close(together, torch.cat([network.read([request]) for request in requests]))
    _, (final, _) = network.lstm(network.embedding(torch.tensor([network.tokens(requests[0])])))
    close(together[0], torch.tanh(network.linear(torch.cat([final[0, 0], final[1, 0]]))))


def test_what_the_network_reads(model):
    network = trainee_for(model).module
    text = model.tokenizer.decode(list(network.tokens(REQUESTS[0])))
    assert text.strip() == "Vadolm >> a long answer of many words || What is the birthplace of Budrer Vadolm?"
    network = trainee_for(model, condition="prompt").module
    encoded = model.encode(REQUESTS[0].prompt, REQUESTS[0].target)
    assert network.tokens(REQUESTS[0]) == encoded.prompt + encoded.target


def test_an_old_answer_that_is_not_known_is_the_models_own(model):
    requests = with_answers(model, [REQUESTS[2], REQUESTS[0], EditRequest("X", "X", "so")])
    assert requests[1] == REQUESTS[0]
    for request in (requests[0], requests[2]):
        encoded = model.encode(request.prompt, request.target)
        length = len(encoded.target)
        if model.has_encoder:
            ids = torch.tensor([[0]])
            for _ in range(length):
                logits = model.module(input_ids=torch.tensor([encoded.prompt]), decoder_input_ids=ids).logits
                ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
            own = ids[0, 1:]
        else:
            ids = torch.tensor([encoded.prompt])
            for _ in range(length):
                ids = torch.cat([ids, model.module(ids).logits[:, -1:].argmax(-1)], 1)
            own = ids[0, len(encoded.prompt):]
        assert request.target_true == model.tokenizer.decode(own.tolist(), skip_special_tokens=True).strip()


@pytest.mark.parametrize(("vocabulary", "width", "inner", "places", "parameters"), [
    (50400, 4096, 16384, 3, 354.8e6), (32128, 1024, 16384, 4, 186.3e6), (32128, 2048, 5120, 4, 139.2e6)])
def test_sizes_are_those_of_the_authors_networks(vocabulary, width, inner, places, parameters):
    edited = [Matrix(f"{place}.{name}", "decoder", *shape) for place in range(places)
              for name, shape in (("up", (width, inner)), ("down", (inner, width)))]
    with torch.device("meta"):
        model = SimpleNamespace(input_table=nn.Embedding(vocabulary, width).weight, weights=Weights())
        network = KENetwork(model, edited, KEConfig(layers=(0,), steps=1, batch_size=1, learning_rate=1.0))
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(parameters, rel=1e-3)


def test_embeddings_start_as_the_models(model):
    artefact = KE.train(model, config_for(model), EXAMPLES)
    close(artefact.tensors["embedding.weight"].float(), model.module.get_input_embeddings().weight, 2e-3)


def test_a_joint_edit_is_the_sum(model):
    config = config_for(model)
    editor = KE(model, config, Resources(artefact=KE.train(model, config, EXAMPLES)))
    joint, alone = editor.edit(REQUESTS), editor.edit_each(REQUESTS)
    assert len(joint.terms) == len(alone[0].terms)
    for number, term in enumerate(joint.terms):
        close(term.a @ term.b.T, sum(patch.terms[number].a @ patch.terms[number].b.T for patch in alone))


def test_it_learns_to_edit(model):
    config = config_for(model, steps=60, batch_size=8, learning_rate=1e-2, max_scale=30.0, locality_weight=0.1)
    losses = []
    KE.train(model, config, EXAMPLES, on_step=lambda _, loss: losses.append(loss))
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_an_old_answer_ends_where_the_model_ends_it(tiny_t5, monkeypatch):
    end, word = tiny_t5.tokenizer.eos_token_id, tiny_t5.tokenise(" Vadolm")[0]

    def say(batch):  # one word, the end, and then the word again
        tokens = torch.where(batch.position == 1, end, word)
        return torch.nn.functional.one_hot(tokens, len(tiny_t5.tokenizer)).float()

    monkeypatch.setattr(type(tiny_t5), "own_target_logits", lambda self, batch: say(batch))
    request = EditRequest("Who employs Zed Corman?", "Zed Corman", "a long answer of many words")
    [answered] = with_answers(tiny_t5, [request])
    assert answered.target_true == tiny_t5.tokenizer.decode([word]).strip()
