"""T-Patcher: cached training is the whole model's, its losses are the paper's, its memory is what it should be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from editors.core.artefacts import Artefact
from editors.core.editor import Resources
from editors.core.errors import InputError
from editors.core.examples import Example, Question
from editors.core.methods.neurons import NeuronTraining, _Highest, _top_mean, _Watch
from editors.core.models.capture import capture_inputs
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Neurons, Patch
from editors.core.requests import EditRequest
from editors.t_patcher import TPatcher, TPatcherConfig

REQUESTS = [EditRequest("What is the birthplace of Budrer Vadolm?", "Budrer Vadolm", "a long answer of many words"),
            EditRequest("Who employs Zed Corman?", "Zed Corman", "so")]


@pytest.fixture(params=["tiny_gptj", "tiny_t5", "tiny_gated_t5"])
def model(request):
    return request.getfixturevalue(request.param)


def make(model, **overrides):
    torch.manual_seed(0)
    settings = {"steps": 3, "top_memories": 4, "label_smoothing": 0.0, **overrides}
    artefact = Artefact("t-patcher", TPatcher.training_version, {}, model.digest, {
        "keys": torch.randn(9, 32).half(), "validation_keys": torch.randn(3, 32).half()})
    return TPatcher(model, TPatcherConfig(**settings), Resources(artefact=artefact))


def test_the_fit_and_its_gradient_are_those_of_the_whole_model(model):
    editor = make(model, memory_weight=0.0, activation_weight=0.0, max_neurons=2)
    for request in REQUESTS:
        training = NeuronTraining(model, editor.config, editor.read([request]), [request], seed=0)
        loss, _, _ = training.losses(training.positions, torch.tensor([0]), torch.zeros(1, 32))
        loss.sum().backward()
        keys = training.keys[0].detach().clone().requires_grad_()
        values = training.values[0].detach().T.clone().requires_grad_()
        bias = training.bias[0].detach().clone().requires_grad_()
        patch = Patch((Neurons(model.ffn_path(model.depth - 1), keys, values, training.activation, bias),))
        batch = model.collate([model.encode(request.prompt, request.target, end=True)])
        with overlay(model, patch):
            whole = nn.functional.cross_entropy(model.target_logits(batch), batch.target)
        whole.backward()
        torch.testing.assert_close(loss[0], whole, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(training.keys.grad[0], keys.grad, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(training.bias.grad[0], bias.grad, atol=1e-5, rtol=1e-4)


def test_neurons_start_answering_their_own_wrong_tokens(model):
    editor = make(model, max_neurons=2, amplify=3.0)
    positions = editor.read(REQUESTS)
    training = NeuronTraining(model, editor.config, positions, REQUESTS, seed=0)
    batch = model.collate([model.encode(r.prompt, r.target, end=True) for r in REQUESTS])
    wrong = model.target_logits(batch).argmax(-1) != batch.target
    for edit in range(2):
        expected = positions.q[wrong & (batch.row == edit)][:2]
        assert int(training.count[edit]) == len(expected)
        torch.testing.assert_close(training.query[edit, : len(expected)], expected)
        ones = (training.keys[edit, : len(expected)] * expected).sum(-1)
        torch.testing.assert_close(ones, torch.ones(len(expected)))
    spread = training.values[training.real].std()
    assert 2.0 < float(spread) < 4.0


@pytest.mark.parametrize("copies", [1, 3])
def test_the_memory_losses_are_the_papers(tiny_gptj, copies):
    """Written out for one edit and its copies, with loops."""
    editor = make(tiny_gptj, copies=copies, top_activations=2, max_neurons=2, margins=(3.0, -3.0),
                  activation_weight=2.0, memory_weight=5.0)
    request = REQUESTS[0]
    training = NeuronTraining(tiny_gptj, editor.config, editor.read([request]), [request], seed=0)
    with torch.no_grad():
        training.bias.normal_()
    memory = editor.memories()[0]
    own = [float(training.keys[0, p] @ training.query[0, p] + training.bias[0, p]) for p in range(2)]
    other = [(float(m @ training.keys[0, p] + training.bias[0, p]), own[p]) for m in memory for p in range(2)]
    first = sorted((math.exp(x - a + 3.0) for x, a in other * copies), reverse=True)[:4]
    second = sorted((math.exp(x + 3.0) for x, _ in other * copies), reverse=True)[:4]
    silent = sum(first) / 4 + sum(second) / 4
    activation = sum(sorted((math.exp(-a) for a in own * copies), reverse=True)[:2]) / 2
    total, _, alone = training.losses(training.positions, torch.tensor([0]), memory)
    plain = make(tiny_gptj, max_neurons=2, activation_weight=0.0, memory_weight=0.0)
    fit = NeuronTraining(tiny_gptj, plain.config, training.positions, [request], seed=0)
    fit.bias = training.bias
    base, _, _ = fit.losses(training.positions, torch.tensor([0]), memory)
    assert float(alone) == pytest.approx(silent, rel=1e-4)
    assert float(total - base) == pytest.approx(2.0 * activation + 5.0 * silent, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_largest_of_a_memory_in_parts_are_those_of_all_of_it(monkeypatch, dtype):
    """Values and gradients, of a memory in 16 or 32 bits, whose parts may be smaller than what is sought."""
    monkeypatch.setattr("editors.core.methods.neurons.CHUNK", 4)
    torch.manual_seed(0)
    memory, keys, bias = torch.randn(11, 6).to(dtype), torch.randn(3, 6), torch.randn(3)
    for most in (1, 5, 20):
        found, expected = ([each.clone().requires_grad_() for each in (keys, bias)] for _ in range(2))
        top = _Highest.apply(*found, memory, most)
        whole = (expected[0] @ memory.float().T + expected[1][:, None]).sort(1, descending=True).values[:, :most]
        torch.testing.assert_close(top, whole)
        top.exp().sum().backward()
        whole.exp().sum().backward()
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.grad, other.grad)


def test_a_mean_of_the_largest_counts_real_entries_alone():
    values, real = torch.tensor([[5.0, 9.0, 1.0], [7.0, 8.0, 9.0]]), torch.tensor([[True, False, True], [False] * 3])
    assert _top_mean(values, real, 2, 1).tolist() == [3.0, 0.0]
    assert _top_mean(values, torch.ones(2, 3, dtype=torch.bool), 2, 1).tolist() == [7.0, 8.5]


def test_a_mean_of_the_largest_counts_copies():
    values, real = torch.tensor([[5.0, 9.0, 1.0], [7.0, 8.0, 9.0]]), torch.tensor([[True, False, True], [False] * 3])
    assert _top_mean(values, real, 3, 2).tolist() == pytest.approx([(5 + 5 + 1) / 3, 0])
    assert _top_mean(values, real, 2, 8).tolist() == [5, 0]
    assert _top_mean(values, real, 100, 8).tolist() == [3, 0]


def test_a_right_answer_needs_no_neuron(model):
    editor = make(model)
    positions = editor.read(REQUESTS)
    batch = model.collate([model.encode(r.prompt, r.target, end=True) for r in REQUESTS])
    known = torch.where(positions.edit == 0, model.target_logits(batch).argmax(-1), positions.target)
    training = NeuronTraining(model, editor.config, replace(positions, target=known), REQUESTS, seed=0)
    training.train(*editor.memories())
    first, second = training.patch(0), training.patch(1)
    assert not first and first.info["right"] and first.info["steps"] == 0
    assert second and second.info["steps"] == 3


def test_edits_end_by_themselves(tiny_gated_t5):
    editor = make(tiny_gated_t5, steps=600, check_every=5, check_from=10, memory_weight=0.01, lr=5e-2, max_neurons=8)
    patches = editor.edit_each(REQUESTS)
    assert all(patch.info["right"] and patch.info["steps"] < 600 for patch in patches)
    for request, patch in zip(REQUESTS, patches, strict=True):
        batch = tiny_gated_t5.collate([tiny_gated_t5.encode(request.prompt, request.target, end=True)])
        with overlay(tiny_gated_t5, patch):
            assert torch.equal(tiny_gated_t5.target_logits(batch).argmax(-1), batch.target)


def test_the_watch_ends_stalled_edits_and_slows_flat_ones():
    watch = _Watch(1, TPatcherConfig(patience=1, improvement=0.1, plateau=(0.5, 1, 0.05)))
    assert [watch.stalls(0, loss) for loss in (1.0, 0.8, 0.75)] == [False, False, True]
    assert [watch.decay(0, loss) for loss in (1.0, 0.5, 0.49, 0.48, 0.2)] == [1.0, 1.0, 1.0, 0.5, 1.0]


@pytest.mark.parametrize("unchanged", [False, True])
def test_the_memory_is_the_ffns_inputs_on_other_questions(model, unchanged):
    examples = [Example(EditRequest(f"Who is S{n}?", f"S{n}", "new", "so"), (), (Question("It was", "x y"),))
                for n in range(5)]
    config = TPatcherConfig(memory_queries=100, batch_tokens=16, memory_unchanged=unchanged)
    artefact = TPatcher.train(model, config, examples, seed=0)
    tensors = artefact.tensors
    assert artefact.report == {"queries": 5 if unchanged else 4, "held_out": 1} and artefact.model == model.digest
    found = torch.cat([tensors["keys"], tensors["validation_keys"]]).float()
    path = model.ffn_path(model.depth - 1)
    expected = []
    for prompt, target in [(f"Who is S{n}?", "so") for n in range(5)] + [("It was", "x y")] * unchanged:
        with capture_inputs(model, [path]) as inputs:
            model.states(model.collate([model.encode(prompt, target)]))
        expected.append(inputs[path][0] if model.has_encoder else inputs[path][0, 1:])
    expected = torch.cat(expected)
    assert found.shape == expected.shape
    distances = torch.cdist(expected, found).min(1).values
    assert float(distances.max()) < 2e-2  # stored in half precision


@pytest.mark.parametrize("remember", [True, False])
def test_later_edits_of_a_stream_are_silent_where_earlier_ones_were_made(model, remember):
    editor = make(model, copies=2, remember=remember)
    patch = Patch()
    for request in REQUESTS:
        with overlay(model, patch):
            patch = (patch + editor.edit_each([request])[0]).compact()
    own = editor.read(REQUESTS).q
    with overlay(model, patch):
        for memory, learned in zip(editor.memories(), (9, 3), strict=True):
            assert len(memory) == learned + 2 * len(own) * remember
            if remember:
                assert float(torch.cdist(own, memory[learned:]).min(1).values.max()) < 2e-2
    assert len(editor.memories()[0]) == 9


def test_too_little_to_remember(tiny_gptj):
    with pytest.raises(InputError, match="at least two training questions, got 0"):
        TPatcher.train(tiny_gptj, TPatcherConfig(), [])
