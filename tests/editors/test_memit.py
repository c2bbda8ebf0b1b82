"""MEMIT against plain computations: a dense solve, and a loop that writes weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from editors import resolve_config
from editors.core.editor import Resources
from editors.core.errors import InputError
from editors.core.memory import Room
from editors.core.methods.contexts import sample_contexts
from editors.core.models.batches import Encoded
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.models.statistics import KeySolver, second_moments
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Dense, LowRank, Patch
from editors.core.requests import EditRequest
from editors.memit import MEMIT, MemitConfig, _change, _directions
from evaluators.datasets import read_corpus

REQUESTS = [EditRequest("The birthplace of Budrer Vadolm is", "Budrer Vadolm", "Omerga"),
            EditRequest("Zed Corman works for", "Zed Corman", "Vard and Sons"),
            EditRequest("One who lives in a small house in Omerga is Ann Lee", "Ann Lee", "so")]
LAYERS = (1, 0, 2)  # in the order they are written


@pytest.fixture(scope="module")
def moments(tiny_gptj):
    return second_moments(tiny_gptj, range(4), read_corpus("testbed"), 3000)


@pytest.fixture
def make(tiny_gptj, moments):
    def editor(**overrides):
        settings = {"layers": LAYERS, "steps": 4, "contexts": ((4, 2),), "moment_weight": 3.0, **overrides}
        return MEMIT(tiny_gptj, MemitConfig(**settings), Resources(moments))
    return editor


def keys_and_states(editor, model, requests=REQUESTS):
    """Every request's key at every layer and state at the last, by one plain forward per prompt."""
    contexts, layers = editor.contexts, editor.config.layers
    shares = [0.5] + [0.5 / (len(contexts) - 1)] * (len(contexts) - 1) if len(contexts) > 1 else [1.0]
    downs = {layer: model.down_path(layer) for layer in layers}
    block = model.block_path(layers[-1])
    keys = {layer: [] for layer in layers}
    states = []
    for request in requests:
        seen = {layer: 0 for layer in layers}
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
        for layer in layers:
            keys[layer].append(seen[layer])
    return {layer: torch.stack(found).T for layer, found in keys.items()}, torch.stack(states)


def test_directions_are_those_of_the_dense_solve():
    generator = torch.Generator().manual_seed(0)
    moment = torch.randn(200, 64, generator=generator, dtype=torch.float64)
    moment = moment.T @ moment / 200
    for facts in (1, 5, 64, 90):  # up to more facts than the keys have dimensions
        keys = torch.randn(64, facts, generator=generator, dtype=torch.float64)
        dense = torch.linalg.solve(3.0 * moment + keys @ keys.T, keys)
        spread = torch.linalg.solve(3.0 * moment, keys)
        torch.testing.assert_close(_directions(keys, spread), dense, rtol=1e-9, atol=1e-9)


def test_equal_keys_share_the_change():
    """Two facts on one key: solvable, and together they get what one of them would."""
    key = torch.randn(8, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    twice = key.repeat(1, 2)
    found = _directions(twice, twice / 1e-6)  # C = I, and next to no weight on it
    torch.testing.assert_close(found, (key / key.square().sum() / 2).repeat(1, 2), rtol=1e-6, atol=1e-7)


def naive_values(model, request, editor):
    """Meng et al. 2023, Eq. 16 word by word: whole forward passes of one prompt, a hook adds delta to the block."""
    config, block = editor.config, model.submodule(model.block_path(editor.config.layers[-1]))
    rows = []
    for context in editor.contexts:
        placed = replace(request, prompt=context + request.prompt, subject_start=len(context) + request.subject_start)
        encoded = model.encode(placed.prompt, placed.target)
        rows.append((torch.tensor([encoded.prompt + encoded.target]), len(encoded.prompt), model.subject_index(placed)))
    essence = EditRequest(f"{request.subject} is a", request.subject, "x")
    ids, end = torch.tensor([model.encode(essence.prompt).prompt]), model.subject_index(essence)

    def logs(ids, index, delta):
        seen = []

        def add(_module, _args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            seen.append(hidden[0, index].detach().clone())
            moved = hidden.index_put((torch.tensor([0]), torch.tensor([index])), hidden[:, index] + delta)
            return (moved, *output[1:]) if isinstance(output, tuple) else moved
        handle = block.register_forward_hook(add)
        try:
            return model.module(input_ids=ids).logits[0].log_softmax(-1), seen[0]
        finally:
            handle.remove()

    delta = torch.zeros(model.width, requires_grad=True)
    base = logs(ids, end, delta)[0][end].detach()
    state = logs(rows[0][0], rows[0][2], delta)[1]
    optimizer = torch.optim.Adam([delta], lr=config.lr)
    for _ in range(config.steps - 1):
        nll = sum(-found[length - 1: -1].gather(1, row[0, length:, None]).mean()
                  for row, length, index in rows for found in [logs(row, index, delta)[0]]) / len(rows)
        kl = torch.nn.functional.kl_div(base, logs(ids, end, delta)[0][end], log_target=True, reduction="sum")
        loss = nll + config.kl * kl + config.weight_decay * delta.norm() / state.norm() ** 2
        if loss < config.stop_loss:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            delta *= min(1.0, float(config.clamp * state.norm() / delta.norm()))
    return state + delta.detach()


@pytest.mark.parametrize("clamp", [0.75, 50.0])
def test_targets_are_those_of_a_plain_loop(make, clamp):
    editor = make(clamp=clamp, lr=0.2)
    targets, _ = editor._targets(REQUESTS)
    for target, request in zip(targets, REQUESTS, strict=True):
        torch.testing.assert_close(target.float(), naive_values(editor.model, request, editor), atol=2e-4, rtol=1e-3)


def write_by_hand(editor, requests):
    """The layer loop on a copied model whose weights are written, with dense solves."""
    model = copy.copy(editor.model)
    model.module = copy.deepcopy(editor.model.module)
    targets, _ = editor._targets(requests)
    for place, layer in enumerate(editor.config.layers):
        keys, states = keys_and_states(editor, model, requests)
        path, key = model.down_path(layer), keys[layer]
        moment = editor.resources.statistics[path].mean
        moment = moment + KeySolver(editor.resources.statistics[path]).ridge * moment.diagonal().mean() * torch.eye(
            len(moment), dtype=torch.float64)
        directions = torch.linalg.solve(editor.config.moment_weight * moment + key @ key.T, key)
        residual = (targets - states).T / (len(editor.config.layers) - place)
        model.submodule(path).weight += (residual @ directions.T).float()
    return model


def assert_written(editor, patch, written):
    model = editor.model
    batch = model.collate([model.encode(request.prompt, request.target) for request in REQUESTS])
    with overlay(model, patch):
        torch.testing.assert_close(model.target_logits(batch), written.target_logits(batch), atol=1e-4, rtol=1e-4)
    for layer, term in zip(editor.config.layers, patch.terms, strict=True):
        change = written.submodule(term.module).weight - model.submodule(term.module).weight
        assert term.module == model.down_path(layer)
        torch.testing.assert_close(term.a @ term.b.T, change, atol=1e-4, rtol=1e-3)


@pytest.fixture(params=["to and fro", "upwards", "upwards, with gaps", "upwards, nothing kept"])
def layers(request, tiny_gptj, monkeypatch):
    """With and without room to keep how layers were passed."""
    monkeypatch.setattr(tiny_gptj, "room", Room())
    if request.param.endswith("nothing kept"):
        tiny_gptj.room.shrink(4)
    return {"to and fro": LAYERS, "upwards, with gaps": (0, 2)}.get(request.param, (0, 1, 2))


def test_a_joint_edit_is_the_plain_loop_that_writes_weights(make, layers):
    editor = make(layers=layers)
    assert_written(editor, editor.edit(REQUESTS), write_by_hand(editor, REQUESTS))


def test_each_edit_of_many_is_the_plain_loop_of_it_alone(make, layers):
    editor = make(layers=layers)
    for request, patch in zip(REQUESTS, editor.edit_each(REQUESTS), strict=True):
        assert_written(editor, patch, write_by_hand(editor, [request]))
        alone, joint = editor.edit_each([request])[0], editor.edit([request])
        for one, other, third in zip(patch.terms, alone.terms, joint.terms, strict=True):
            torch.testing.assert_close(one.a @ one.b.T, other.a @ other.b.T, atol=1e-4, rtol=1e-3)
            assert torch.equal(other.a, third.a) and torch.equal(other.b, third.b)


def test_no_block_is_run_again_where_there_is_room(make, layers):
    editor = make(layers=layers)
    editor.edit(REQUESTS)
    runs, model = [], editor.model
    handles = [model.submodule(model.block_path(block)).register_forward_hook(
        lambda _module, args, _output, block=block: runs.append((block, len(args[0])))) for block in range(model.depth)]
    editor.sought = dict(zip(REQUESTS, editor.seek(REQUESTS), strict=True))
    runs.clear()
    editor.edit(REQUESTS)
    for handle in handles:
        handle.remove()
    rows = len(REQUESTS) * len(editor.contexts)
    if layers == tuple(sorted(layers)) and not model.room.halved:
        bare = [(block, len(REQUESTS)) for layer in layers for block in range(layer + 1, max(layers) + 1)]
        assert sorted(runs) == sorted([*bare, *((block, rows) for block in range(max(layers) + 1))])
    else:
        assert len([count for _, count in runs if count == rows]) > max(layers) + 1


def test_the_last_layer_ends_at_the_sought_value_when_nothing_holds_it_back(make):
    editor = make(contexts=(), moment_weight=1e-9)
    targets, _ = editor._targets(REQUESTS)
    for number, patch in enumerate(editor.edit_each(REQUESTS)):
        with overlay(editor.model, patch):
            _, states = keys_and_states(editor, editor.model)
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


def test_layers_must_lead_up_to_the_last(tiny_gptj):
    for layers in ([2, 1], [1, 1], [0, 2, 1]):
        with pytest.raises(InputError, match="last must be the highest"):
            resolve_config("memit", tiny_gptj.module.config, {"layers": layers})


def test_contexts_begin_with_the_given_words(tiny_gptj):
    words = ("The", "Therefore", "Because", "I", "You")
    contexts = sample_contexts(tiny_gptj, [(10, 7)], 1, words)
    assert contexts == sample_contexts(tiny_gptj, [(10, 7)], 1, words)
    assert contexts != sample_contexts(tiny_gptj, [(10, 7)], 2, words)
    assert contexts[0] == "" and len(set(contexts)) == 8
    for number, context in enumerate(contexts[1:]):
        assert context.startswith(words[number % 5]) and context.endswith(". ")
    editor = MEMIT(tiny_gptj, MemitConfig(layers=(0,)))
    assert [context.split()[0][:1] for context in editor.contexts[1:]] == ["T", "T", "B", "I", "Y"]


def test_every_step_of_a_text_is_among_the_likeliest_tokens(tiny_gptj):
    """With the sampler's choice left out of it: each token is one of the five likeliest after those before it."""
    (_, context) = sample_contexts(tiny_gptj, [(8, 1)], 0, ["The"])
    ids = tiny_gptj.tokenise(context.removesuffix(". "))
    if len(ids) != 8:
        pytest.skip("the text does not tokenise back to what was sampled")
    for end in range(len(tiny_gptj.tokenise("The")), 8):
        batch = tiny_gptj.collate([Encoded(ids[:end], (0,))])
        assert ids[end] in tiny_gptj.target_logits(batch)[0].topk(5).indices


@pytest.mark.parametrize(("gib", "fits"), [(80, True), (32, False)])
def test_factors_stay_on_a_device_that_has_room_for_all(make, monkeypatch, gib, fits):
    """Six of 16,384 keys in fp64 take 12 GiB."""
    editor = make()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=gib * 2**30))
    factor = SimpleNamespace(nbytes=8 * 16_384**2 * 6 // len(editor.config.layers), device=torch.device("cuda", 0))
    assert editor._factors_fit(SimpleNamespace(factor=factor)) == fits
