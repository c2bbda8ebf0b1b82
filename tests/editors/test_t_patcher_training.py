"""The trainer of T-Patcher's neurons against plain PyTorch: one edit, the whole model, the library's own Adam, gradient
clipping and plateau scheduler."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from editors.core.artefacts import Artefact
from editors.core.editor import Resources
from editors.core.methods.neurons import TIE, NeuronTraining
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Neurons, Patch
from editors.core.requests import EditRequest
from editors.t_patcher import TPatcher, TPatcherConfig

REQUESTS = [
    EditRequest("What is the birthplace of Budrer Vadolm?", "Budrer Vadolm", "a long answer of many words"),
    EditRequest("X lives in", "X", "so"),
    EditRequest("In which of all the many cities of that long and winding country would one have to look for the house "
                "that belongs to Ann Lee", "Ann Lee", "Omerga and sons"),
    EditRequest("The employer of Zed Corman is", "Zed Corman", "Vard"),
]
# Two neurons or fewer each. With more, a difference of 1e-7 grows to 1 within a hundred steps, whoever trains.
SHORT = [
    REQUESTS[1],
    EditRequest("The employer of Zed Corman is", "Zed Corman", "Vard"),
    EditRequest("What does the well known and often praised Ann Lee speak?", "Ann Lee", "no"),
]


def make(model, **overrides):
    generator = torch.Generator().manual_seed(0)
    keys = {name: torch.randn(count, 32, generator=generator) for name, count in
            (("keys", 9), ("validation_keys", 3))}
    settings = {"top_memories": 9, "copies": 2, "max_neurons": 3, "amplify": 1.0, **overrides}
    return TPatcher(model, TPatcherConfig(**settings),
                    Resources(artefact=Artefact("t-patcher", TPatcher.training_version, {}, model.digest, keys)))


def prepare(editor, requests):
    return NeuronTraining(editor.model, editor.config, editor.read(requests), requests, seed=0)


def live_patch(model, training, keys, bias, values):
    return Patch((Neurons(model.ffn_path(model.depth - 1), keys, values.T, training.activation, bias),))


class Reference:
    """One edit on the whole model; nothing is cached but the neurons' own queries."""

    def __init__(self, editor, request):
        self.editor, self.model, self.config = editor, editor.model, editor.config
        self.start = prepare(editor, [request])
        count = int(self.start.count[0])
        self.query = self.start.query[0, :count]
        self.keys, self.bias, self.direction, self.scale = self.parameters = [
            nn.Parameter(parameter.detach()[0, :count].clone()) for parameter in self.start.parameters]
        self.batch = self.model.collate([self.model.encode(request.prompt, request.target, end=True)])
        self.steps = 0

    @property
    def values(self):
        return self.direction * self.scale

    def losses(self, memory):
        config = self.config
        with overlay(self.model, live_patch(self.model, self.start, self.keys, self.bias, self.values)):
            logits = self.model.target_logits(self.batch)
        # the smoothed share, over all tokens but the target
        logs, share = logits.log_softmax(-1), config.label_smoothing / (logits.shape[1] - 1)
        target = logs.gather(1, self.batch.target[:, None])[:, 0]
        fit = -((1 - config.label_smoothing) * target + share * (logs.sum(1) - target)).mean()

        def largest(values, most):
            """The mean of the largest of all copies' values."""
            values = values.flatten().repeat(config.copies)
            return values.topk(min(most, len(values))).values.mean()

        own = (self.query * self.keys).sum(1) + self.bias
        other = memory @ self.keys.T + self.bias
        activation = largest((-own - TIE * torch.arange(len(own))).exp(), config.top_activations)
        silent = sum(largest(scores.exp(), config.top_memories)
                     for scores in (other - own + config.margins[0], other - config.margins[1]))
        right = torch.equal(logits.argmax(-1), self.batch.target)
        return fit + config.activation_weight * activation + config.memory_weight * silent, fit, silent, right

    def train(self):
        config, (memory, held_out) = self.config, self.editor.memories()
        optimizer = torch.optim.Adam(self.parameters, lr=config.lr, weight_decay=config.weight_decay)
        factor, patience, threshold = config.plateau
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience,
                                                               threshold=threshold)
        best = float("inf")
        for self.steps in range(1, config.steps + 1):
            optimizer.zero_grad()
            self.losses(memory)[0].backward()
            nn.utils.clip_grad_norm_(self.parameters, config.clip)
            optimizer.step()
            if self.steps % config.check_every:
                continue
            with torch.no_grad():
                _, fit, silent, right = self.losses(held_out)
            scheduler.step(float(fit))
            if right and self.steps > config.check_from:
                if float(silent) > best - config.improvement:
                    break
                best = float(silent)
        self.rate = optimizer.param_groups[0]["lr"] / config.lr


def test_every_gradient_is_that_of_the_whole_model(model):
    editor = make(model)
    for request in REQUESTS[:2]:
        training, reference = prepare(editor, [request]), Reference(editor, request)
        memory = editor.memories()[0]
        total, _, silent = training.losses(training.positions, torch.tensor([0]), memory)
        whole, _, whole_silent, _ = reference.losses(memory)
        total.sum().backward()
        whole.backward()
        torch.testing.assert_close(total[0], whole, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(silent[0], whole_silent, atol=1e-5, rtol=1e-5)
        for cached, plain in zip(training.parameters, reference.parameters, strict=True):
            torch.testing.assert_close(cached.grad[0, : len(plain)], plain.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("overrides", [
    {"steps": 12, "clip": 0.5, "check_every": 50},  # clipped at every step
    {"steps": 24, "check_every": 2, "plateau": (0.5, 1, 0.5)},  # soon on a plateau
    {"steps": 80, "lr": 5e-2, "check_every": 2, "check_from": 6, "memory_weight": 0.01, "max_neurons": 8},  # ends
], ids=["clipping", "plateau", "ending"])
def test_side_by_side_training_is_plain_training_of_each(tiny_gated_t5, overrides):
    editor = make(tiny_gated_t5, **overrides)
    requests = SHORT if "check_from" in overrides else REQUESTS
    together = prepare(editor, requests)
    together.train(*editor.memories())
    seen = set()
    for edit, request in enumerate(requests):
        reference = Reference(editor, request)
        reference.train()
        count = len(reference.keys)
        assert int(together.steps[edit]) == reference.steps
        assert float(together.rate[edit]) == pytest.approx(reference.rate)
        torch.testing.assert_close(together.keys[edit, :count], reference.keys, atol=2e-3, rtol=1e-2)
        torch.testing.assert_close(together.values[edit, :count], reference.values, atol=2e-3, rtol=1e-2)
        seen.add((reference.steps, reference.rate))
    if "clip" not in overrides:
        assert len(seen) > 1 or ("plateau" in overrides and seen != {(24, 1.0)})


def test_edits_that_end_at_different_steps_are_the_edits_alone(model):
    editor = make(model, steps=300, lr=3e-2, check_every=5, check_from=10, memory_weight=0.01, max_neurons=8)
    together = editor.edit_each(SHORT)
    assert len({patch.info["steps"] for patch in together}) > 1
    for request, patch in zip(SHORT, together, strict=True):
        (alone,) = editor.edit_each([request])
        assert dict(alone.info) == dict(patch.info)
        for name, tensor in patch.terms[0].tensors().items():
            torch.testing.assert_close(tensor, alone.terms[0].tensors()[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("steps", [49, 50])
def test_what_is_said_of_the_outcome_is_true_of_the_last_step(model, steps):
    """Also when training ends between two checks."""
    editor = make(model, steps=steps, lr=5e-2, check_every=50, memory_weight=0.01, max_neurons=8)
    for request, patch in zip(REQUESTS, editor.edit_each(REQUESTS), strict=True):
        batch = model.collate([model.encode(request.prompt, request.target, end=True)])
        with overlay(model, patch):
            assert patch.info["right"] == torch.equal(model.target_logits(batch).argmax(-1), batch.target)


def test_in_a_stream_the_earlier_neurons_are_seen(model):
    editor = make(model, steps=300, lr=5e-2, check_every=5, check_from=10, memory_weight=0.01, plateau=(1.0, 1, 0.05))
    before = editor.read(REQUESTS)
    (first,) = editor.edit_each(SHORT[:1])
    assert first.info["right"]
    with overlay(model, first):
        after = editor.read(REQUESTS)
        (again,) = editor.edit_each(SHORT[:1])
    torch.testing.assert_close(after.q, before.q)
    torch.testing.assert_close(after.r, before.r + first.terms[0].delta(before.q), atol=1e-5, rtol=1e-5)
    assert not again and again.info == {"editor": "t-patcher", "neurons": 0, "steps": 0, "right": True}


def test_random_values_hang_on_the_seed_and_the_request_alone(tiny_t5):
    editor = make(tiny_t5)
    positions = editor.read(REQUESTS)
    forth, back = prepare(editor, REQUESTS), prepare(editor, REQUESTS[::-1])
    assert torch.equal(forth.direction, back.direction.flip(0))
    other = NeuronTraining(tiny_t5, editor.config, positions, REQUESTS, seed=1)
    assert not torch.isclose(forth.direction, other.direction).any(-1).all()
    drawn = forth.direction.flatten(1)
    assert all(not torch.equal(drawn[a], drawn[b]) for a in range(4) for b in range(a))
