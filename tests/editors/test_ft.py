"""FT against plain fine-tuning of a copied model."""

import copy

import pytest
import torch
from support.families import FAMILIES, VARIANTS, tiny

from editors import get_editor, resolve_config
from editors.core.memory import Room
from editors.core.patches.overlay import overlay


def ft(model, **overrides):
    settings = {"layers": [1], "lr": 1e-2, "steps": 6, **overrides}
    return get_editor("ft")(model, resolve_config("ft", model.module.config, settings))


def plain_fine_tuning(model, requests, config):
    """The reference loop on real weights: Adam on fc_out, one batch of all requests per step. Also returns the least
    that a weight's gradient was, as a share of the largest."""
    module = copy.deepcopy(model.module).requires_grad_(False)
    linears = [module.transformer.h[layer].mlp.fc_out for layer in config.layers]
    parameters = [p for linear in linears for p in ([linear.weight, linear.bias] if config.bias else [linear.weight])]
    start = [p.clone() for p in parameters]
    least = [torch.ones_like(p) for p in parameters]
    optimizer = torch.optim.Adam([p.requires_grad_() for p in parameters], lr=config.lr)
    for _ in range(config.steps):
        losses = []
        for request in requests:
            encoded = model.encode(request.prompt, request.target)
            ids = torch.tensor([encoded.prompt + encoded.target])
            logs = module(input_ids=ids).logits[0].log_softmax(-1)
            first, count = len(encoded.prompt) - 1, len(encoded.target)
            at = [first] * count if config.objective == "prompt_last" else list(range(first, first + count))
            losses.append(-logs[at, ids[0, -count:]].mean())
        loss = torch.stack(losses).mean()
        if loss < config.stop_loss:
            break
        optimizer.zero_grad()
        loss.backward()
        least = [torch.minimum(before, p.grad.abs() / p.grad.abs().max())
                 for before, p in zip(least, parameters, strict=True)]
        optimizer.step()
        if config.norm_constraint:
            for parameter, origin in zip(parameters, start, strict=True):
                parameter.data = torch.clamp(parameter.data, origin - config.norm_constraint,
                                             origin + config.norm_constraint)
    return [p.detach() - origin for p, origin in zip(parameters, start, strict=True)], float(loss.detach()), least


@pytest.mark.parametrize("overrides", [
    {"objective": "prompt_last"}, {"objective": "target_new"}, {"norm_constraint": 5e-3}, {"layers": [0, 2]},
    {"bias": False}, {"objective": "target_new", "stop_loss": 6.5, "steps": 20},
])
def test_each_delta_is_that_of_plain_fine_tuning(tiny_gptj, requests, overrides):
    editor = ft(tiny_gptj, **overrides)
    for request, patch in zip(requests, editor.edit_each(requests), strict=True):
        changes, loss, least = plain_fine_tuning(tiny_gptj, [request], editor.config)
        found = [t for term in patch.terms for t in (term.weight, term.bias) if t is not None]
        for change, tensor, share in zip(changes, found, least, strict=True):
            # Adam moves every weight by about lr: one whose gradient is nearly zero may go either way.
            close = torch.isclose(tensor, change, atol=editor.config.lr / 20)
            assert close[share > 1e-3].all() and (share > 1e-3).float().mean() > 0.8
            assert close.float().mean() > 0.99
        assert patch.info["loss"] == pytest.approx(loss, rel=1e-2)


@pytest.mark.parametrize("layers", [[1], [2, 1], [-1]], ids=str)
@pytest.mark.parametrize("name", [*FAMILIES, *VARIANTS])
def test_loss_and_gradient_are_those_of_a_whole_pass_in_every_family(name, layers, requests):
    model = tiny(name)
    editor = ft(model, layers=[layer % model.depth for layer in layers], objective="target_new")
    groups = [[requests[0]], [requests[1], requests[2]]]
    deltas = [editor.new_delta(group) for group in groups]
    generator = torch.Generator().manual_seed(1)
    for parameter in (parameter for delta in deltas for parameter in delta.parameters):
        parameter.data = torch.randn(parameter.shape, generator=generator) / 20
    mini = editor._mini_batch(groups)
    with overlay(model, [delta.patch() for delta in deltas], mini.group.tolist()):
        nll = model.target_nll(model.states(mini.batch), mini.batch)
    means = [torch.stack([nll[mini.batch.row == row].mean() for row in rows]).sum() for rows in ([0], [1, 2])]
    parameters = [parameter for delta in deltas for parameter in delta.parameters]
    found = editor._sums(mini, deltas)
    torch.testing.assert_close(found, torch.stack(means), atol=1e-5, rtol=1e-5)
    for spared, whole in zip(torch.autograd.grad(found.sum(), parameters),
                             torch.autograd.grad(torch.stack(means).sum(), parameters), strict=True):
        torch.testing.assert_close(spared, whole, atol=2e-6, rtol=1e-3)


def test_joint_edit_is_plain_fine_tuning_on_all(tiny_gptj, requests):
    editor = ft(tiny_gptj, objective="target_new")
    patch = editor.edit(requests)
    changes, loss, _ = plain_fine_tuning(tiny_gptj, requests, editor.config)
    assert torch.isclose(patch.terms[0].weight, changes[0], atol=5e-4).float().mean() > 0.99
    assert patch.info["loss"] == pytest.approx(loss, rel=1e-2)


def test_joint_edit_in_mini_batches_learns_every_request(tiny_gptj, requests):
    patch = ft(tiny_gptj, objective="target_new", batch_size=2, steps=10).edit(requests)
    batch = tiny_gptj.collate([tiny_gptj.encode(r.prompt, r.target) for r in requests])

    def losses():
        nll = torch.nn.functional.cross_entropy(tiny_gptj.target_logits(batch), batch.target, reduction="none")
        return torch.stack([nll[batch.row == row].mean() for row in range(len(requests))])

    before = losses()
    with overlay(tiny_gptj, patch):
        assert (losses() < before - 0.1).all()


def test_edits_that_are_done_stop_moving(tiny_gptj, requests):
    settings = {"objective": "target_new", "steps": 30}
    floor = max(patch.info["loss"] for patch in ft(tiny_gptj, **settings, stop_loss=0).edit_each(requests))
    patches = ft(tiny_gptj, **settings, stop_loss=floor + 0.02).edit_each(requests)
    steps = [patch.info["steps"] for patch in patches]
    assert all(patch.info["loss"] < floor + 0.02 for patch in patches)
    assert len(set(steps)) > 1 and min(steps) < 30


def test_chunks_do_not_matter(tiny_gptj, requests):
    whole, split = ft(tiny_gptj).edit_each(requests), ft(tiny_gptj, edits_at_once=2).edit_each(requests)
    for a, b in zip(whole, split, strict=True):
        assert torch.isclose(a.terms[0].weight, b.terms[0].weight, atol=5e-4).float().mean() > 0.99


def test_no_requests_no_patches(tiny_gptj):
    assert ft(tiny_gptj).edit_each([]) == [] and not ft(tiny_gptj).edit([])


def test_patches_are_as_large_as_they_say(tiny_gptj, requests):
    editor = ft(tiny_gptj, layers=[1, 2], bias=False, steps=1)
    each = editor.needs(editor.config, tiny_gptj.bytes).each
    assert [patch.nbytes for patch in editor.edit_each(requests)] == [each] * len(requests)


def test_a_joint_edit_in_parts_is_that_of_all_its_facts_at_once(tiny_gptj, requests, monkeypatch):
    """As where memory has not sufficed: one fact after another, and one update."""
    def edit():
        return ft(tiny_gptj, steps=3, stop_loss=1e-9).edit(requests)

    whole, widest = edit(), []
    monkeypatch.setattr(tiny_gptj, "room", Room())
    tiny_gptj.room.shrink(len(requests))
    run = tiny_gptj.run_from
    monkeypatch.setattr(tiny_gptj, "run_from", lambda hidden, *rest: widest.append(len(hidden)) or run(hidden, *rest))
    parts = edit()
    assert max(widest) < len(requests) and len(widest) > 3
    assert parts.info["loss"] == pytest.approx(whole.info["loss"], abs=1e-5)
    for a, b in zip(whole.terms, parts.terms, strict=True):
        assert torch.isclose(a.weight, b.weight, atol=5e-5).float().mean() > 0.99
