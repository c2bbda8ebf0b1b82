"""MEMIT against plain computations: a dense solve, and a loop that writes weights."""

from __future__ import annotations

import copy

import pytest
import torch

from editors.base import Resources
from editors.core.capture import capture_inputs, capture_outputs
from editors.core.errors import InputError
from editors.core.overlay import overlay
from editors.core.patch import Dense, LowRank, Patch
from editors.core.requests import EditRequest
from editors.core.statistics import second_moments
from editors.memit import MEMIT, MemitConfig, _change
from evaluators.datasets import corpus

REQUESTS = [EditRequest("The birthplace of Budrer Vadolm is", "Budrer Vadolm", "Omerga"),
            EditRequest("Zed Corman works for", "Zed Corman", "Vard and Sons"),
            EditRequest("One who lives in a small house in Omerga is Ann Lee", "Ann Lee", "so")]
LAYERS = (1, 0, 2)  # in the order they are written


@pytest.fixture(scope="module")
def moments(tiny_gptj):
    return second_moments(tiny_gptj, range(4), corpus("testbed"), 3000)


@pytest.fixture
def make(tiny_gptj, moments):
    def editor(**overrides):
        settings = {"layers": LAYERS, "steps": 4, "contexts": ((4, 2),), "moment_weight": 3.0, **overrides}
        return MEMIT(tiny_gptj, MemitConfig(**settings), Resources(moments))
    return editor


def weights_and_states(editor, model):
    """Every request's key at every layer and state at the last, by one plain forward per prompt."""
    contexts = editor.contexts
    shares = [0.5] + [0.5 / (len(contexts) - 1)] * (len(contexts) - 1) if len(contexts) > 1 else [1.0]
    downs = {layer: model.down_path(layer) for layer in LAYERS}
    block = model.block_path(LAYERS[-1])
    keys = {layer: [] for layer in LAYERS}
    states = []
    for request in REQUESTS:
        seen = {layer: 0 for layer in LAYERS}
        for number, (context, share) in enumerate(zip(contexts, shares, strict=True)):
            start = len(context) + request.subject_start
            placed = EditRequest(context + request.prompt, request.subject, request.target, subject_start=start)
            at = model.subject_index(placed)
            with capture_inputs(model, list(downs.values())) as inputs, capture_outputs(model, [block]) as outputs:
                model.module(input_ids=torch.tensor([model.encode(placed.prompt).prompt]))
            for layer, path in downs.items():
                seen[layer] = seen[layer] + share * inputs[path][0, at].double()
            if number == 0:
                states.append(outputs[block][0, at].double())
        for layer in LAYERS:
            keys[layer].append(seen[layer])
    return {layer: torch.stack(found).T for layer, found in keys.items()}, torch.stack(states)


def test_directions_are_those_of_the_dense_solve(make, moments):
    editor = make()
    torch.manual_seed(0)
    keys = torch.randn(64, 5, dtype=torch.float64)
    for layer in LAYERS:
        moment = moments[editor.model.down_path(layer)].mean.double()
        moment = moment + editor._solvers[layer].ridge * moment.diagonal().mean() * torch.eye(64, dtype=torch.float64)
        dense = torch.linalg.solve(3.0 * moment + keys @ keys.T, keys)
        torch.testing.assert_close(editor._directions(layer, keys), dense, rtol=1e-6, atol=1e-9)


def test_a_joint_edit_is_the_plain_loop_that_writes_weights(make):
    editor = make()
    model = copy.copy(editor.model)
    model.module = copy.deepcopy(editor.model.module)
    targets, _ = editor._targets(REQUESTS)
    for place, layer in enumerate(LAYERS):
        keys, states = weights_and_states(editor, model)
        residual = (targets - states).T / (len(LAYERS) - place)
        model.submodule(model.down_path(layer)).weight += (residual @ editor._directions(layer, keys[layer]).T).float()
    batch = model.collate([model.encode(request.prompt, request.target) for request in REQUESTS])
    with overlay(editor.model, editor.edit(REQUESTS)):
        torch.testing.assert_close(editor.model.target_logits(batch), model.target_logits(batch), atol=1e-3, rtol=1e-3)


def test_the_last_layer_ends_at_the_sought_value_when_nothing_holds_it_back(make):
    editor = make(contexts=(), moment_weight=1e-9)
    targets, _ = editor._targets(REQUESTS)
    for number, patch in enumerate(editor.edit_each(REQUESTS)):
        with overlay(editor.model, patch):
            _, states = weights_and_states(editor, editor.model)
        torch.testing.assert_close(states[number], targets[number], atol=1e-3, rtol=1e-3)


def test_the_moment_holds_edits_back(make):
    def size(weight):
        patch = make(moment_weight=weight).edit(REQUESTS)
        return sum(float((term.a @ term.b.T).norm()) for term in patch.terms)

    assert size(1e-3) > 2 * size(100.0)


def test_every_layer_gets_a_term_of_the_number_of_facts(make):
    editor = make()
    joint, single = editor.edit(REQUESTS), editor.edit_each(REQUESTS)[0]
    assert [term.module for term in joint.terms] == [editor.model.down_path(layer) for layer in LAYERS]
    assert {term.b.shape[1] for term in joint.terms} == {3} and {term.b.shape[1] for term in single.terms} == {1}
    assert joint.info["edits"] == 3


def test_a_change_takes_the_smaller_form():
    residual, directions = torch.randn(4, 3), torch.randn(6, 3)
    assert isinstance(_change("m", residual[:, :2], directions[:, :2]), LowRank)
    wide = _change("m", residual, directions)
    assert isinstance(wide, Dense)
    torch.testing.assert_close(wide.weight, residual @ directions.T)


def test_a_later_batch_starts_from_the_edited_model(make):
    editor = make()
    first = editor.edit(REQUESTS[:2])
    with overlay(editor.model, first):
        second = editor.edit(REQUESTS[2:])
    fresh = editor.edit(REQUESTS[2:])
    assert not torch.allclose(second.terms[0].a, fresh.terms[0].a, rtol=1e-3)


def test_a_small_token_budget_changes_nothing(make):
    def logits(patch):
        model = make().model
        with overlay(model, patch):
            return model.target_logits(model.collate([model.encode(r.prompt, r.target) for r in REQUESTS]))

    torch.testing.assert_close(logits(make(batch_tokens=1).edit(REQUESTS)), logits(make().edit(REQUESTS)),
                               atol=1e-4, rtol=1e-4)


def test_missing_moments_are_named(tiny_gptj):
    editor = MEMIT(tiny_gptj, MemitConfig(layers=(0,), steps=2, contexts=()))
    with pytest.raises(InputError, match=r"second moment of 'transformer.h.0.mlp.fc_out'"):
        editor.edit_each(REQUESTS[:1])
    assert editor.edit_each([]) == [] and editor.edit([]).terms == Patch().terms
