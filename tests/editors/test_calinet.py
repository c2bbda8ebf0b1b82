"""CaliNET: slots beside the FFN, trained as the whole model would train them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from editors.calinet import CaliNET, CaliNetConfig
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Patch
from editors.core.requests import EditRequest

REQUESTS = [EditRequest("What is the birthplace of Budrer Vadolm?", "Budrer Vadolm", "a long answer"),
            EditRequest("Who employs Zed Corman?", "Zed Corman", "Vard and Sons")]
CONFIG = CaliNetConfig(layers=(1, 2), slots=3, steps=3, optimizer="adam", lr=1e-2, stop_loss=0.0)


class Widened(nn.Module):
    """An FFN with more neurons beside it."""

    def __init__(self, ffn, activation, slots):
        super().__init__()
        self.ffn, self.activation = ffn, ACT2FN[activation]
        self.slots = {name: nn.Parameter(tensor) for name, tensor in slots.items()}

    def forward(self, x):
        active = self.activation(x @ self.slots["keys"].T)
        if "gate" in self.slots:
            active = active * (x @ self.slots["gate"].T)
        return self.ffn(x) + active @ self.slots["values"].T


def nll(model, request):
    batch = model.collate([model.encode(request.prompt, request.target, end=True)])
    return nn.functional.cross_entropy(model.target_logits(batch), batch.target)


def test_cached_training_is_training_of_the_whole_model(model):
    editor = CaliNET(model, CONFIG)
    for request, patch in zip(REQUESTS, editor.edit_each(REQUESTS), strict=True):
        whole = copy.copy(model)
        whole.module = copy.deepcopy(model.module)
        start = editor.new_delta([request]).patch()
        parameters = []
        for term in start.terms:
            wide = Widened(whole.submodule(term.module), term.activation,
                           {name: tensor.detach().clone() for name, tensor in term.tensors().items()})
            parent, _, name = term.module.rpartition(".")
            setattr(whole.submodule(parent), name, wide)
            parameters += wide.slots.values()
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            nll(whole, request).backward()
            optimizer.step()
        probe = model.collate([model.encode(r.prompt, r.target) for r in REQUESTS])
        with overlay(model, patch), torch.no_grad():
            torch.testing.assert_close(model.target_logits(probe), whole.target_logits(probe), atol=1e-4, rtol=1e-3)


def test_it_starts_out_writing_nothing_or_as_the_authors_do(model):
    batch = model.collate([model.encode(r.prompt, r.target) for r in REQUESTS])
    plain = model.target_logits(batch)
    for zero in (True, False):
        start = CaliNET(model, CONFIG.model_copy(update={"zero_values": zero})).new_delta(REQUESTS).patch()
        with overlay(model, start):
            assert torch.allclose(model.target_logits(batch), plain, atol=1e-6) == zero
        assert (start.terms[0].gate is not None) == model.gated


@pytest.mark.parametrize("optimizer", ["adam", "adafactor"])
def test_a_joint_edit_learns_all_its_facts_in_one_set_of_slots(tiny_gated_t5, optimizer):
    model = tiny_gated_t5
    config = CaliNetConfig(layers=(1, 2), slots=8, steps=100, optimizer=optimizer, lr=5e-2, stop_loss=0.05)
    patch = CaliNET(model, config).edit(REQUESTS)
    assert [len(term.keys) for term in patch.terms] == [8, 8]
    before = [float(nll(model, request)) for request in REQUESTS]
    with overlay(model, patch):
        after = [float(nll(model, request)) for request in REQUESTS]
    assert max(after) < 0.5 * min(before)


def test_no_request_no_slots(tiny_gptj):
    assert CaliNET(tiny_gptj, CONFIG).edit([]).terms == Patch().terms
