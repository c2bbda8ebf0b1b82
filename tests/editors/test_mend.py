"""MEND: starts as plain gradients, rewrites factors token by token, and learns."""

from __future__ import annotations

import pytest
import torch
from support.hyper_examples import EXAMPLES, REQUESTS, close

from editors.core.editor import Resources
from editors.core.methods.hyper_editor import HyperTrainee
from editors.core.methods.hypernetwork import Factors, Matrix, matrices, read_factors
from editors.core.patches.overlay import overlay
from editors.mend import EPSILON, MEND, MendConfig, MendNetwork, Transform


def config_for(model, **overrides):
    settings = {"layers": (1, 2), "encoder_layers": (1,) if model.has_encoder else (), "steps": 1, "batch_size": 4,
                "learning_rate": 1e-12, "alpha_learning_rate": 1e-12, "rank": 8, "validation_examples": 2,
                "validate_every": 5, "alpha": 0.25}
    return MendConfig(**{**settings, **overrides})


def untrained(model, **overrides):
    """An editor whose networks are still the identity."""
    config = config_for(model, **overrides)
    return MEND(model, config, Resources(artefact=MEND.train(model, config, EXAMPLES)))


def factors_alone(model, config, request):
    batch = model.collate([model.encode(request.prompt, request.target, end=True)])
    return read_factors(model, matrices(model, config), batch, model.states)


@pytest.mark.parametrize(("sign", "factor"), [("+", 0.25), ("-", -0.25)])
def test_the_identity_makes_a_gradient_step(model, sign, factor):
    editor = untrained(model, sign=sign, norm=False)
    for request, patch in zip(REQUESTS, editor.edit_each(REQUESTS), strict=True):
        factors = factors_alone(model, editor.config, request)
        assert [term.module for term in patch.terms] == list(factors)
        for term in patch.terms:
            x, grad, real = factors[term.module]
            assert term.a.shape[1] == int(real.sum())
            close(term.a @ term.b.T, factor * grad[0].T @ x[0])


def test_statistics_are_those_of_training_tokens(model):
    config = config_for(model)
    artefact = MEND.train(model, config, EXAMPLES)
    tokens = {}
    for example in EXAMPLES:
        alone = factors_alone(model, config, example.request).values()
        for matrix, (x, grad, real) in zip(matrices(model, config), alone, strict=True):
            shape = f"{matrix.inputs} to {matrix.outputs}"
            tokens.setdefault(shape, []).append(torch.cat([x[real], grad[real]], -1))
    assert sorted(tokens) == ["32 to 64", "64 to 32"]
    for shape, parts in tokens.items():
        joined = torch.cat(parts)
        close(artefact.tensors[f"transforms.{shape}.mean"], joined.mean(0))
        inputs = int(shape.split()[0])
        spread = joined.std(0)
        floor = torch.cat([0.01 * part.mean().expand_as(part) for part in (spread[:inputs], spread[inputs:])])
        close(artefact.tensors[f"transforms.{shape}.std"], torch.maximum(spread, floor), 1e-6)


def test_factors_are_standardised_first(model):
    editor = untrained(model)
    factors = factors_alone(model, editor.config, REQUESTS[0])
    for term, matrix in zip(editor.edit_each(REQUESTS[:1])[0].terms, matrices(model, editor.config), strict=True):
        x, grad, real = (part[0] for part in factors[term.module])
        name = f"transforms.{matrix.inputs} to {matrix.outputs}"
        mean, std = (editor.artefact.tensors[f"{name}.{what}"] for what in ("mean", "std"))
        z = (torch.cat([x, grad], -1)[real] - mean) / (std + EPSILON)
        expected = 0.25 * z[:, matrix.inputs:].T @ z[:, : matrix.inputs]
        close(term.a @ term.b.T, expected, 1e-3)


def test_the_network_is_the_papers():
    """Two residual layers, written out for one token."""
    torch.manual_seed(0)
    transform = Transform(3, 2, rank=4, modes=2)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.normal_()
        transform.mean.normal_()
        transform.std.uniform_(0.5, 2.0)
    x, grad = torch.randn(2, 3, 3), torch.randn(2, 3, 2)
    real = torch.tensor([[True, False, True], [False, True, False]])
    x, grad = x * real[..., None], grad * real[..., None]
    found = transform(Factors(x, grad, real), mode=1)
    for edit, token in real.nonzero().tolist():
        z = torch.cat([x[edit, token], grad[edit, token]])
        z = (z - transform.mean) / (transform.std + 1e-7)
        for layer in transform.layers:
            z = z + torch.relu(layer.scale[1] * (layer.u @ (layer.v @ z) + layer.bias) + layer.shift[1])
        close(found.x[edit, token], z[:3])
        close(found.grad[edit, token], z[3:])
    assert not found.x[~real].any() and not found.grad[~real].any()


@pytest.mark.parametrize(("width", "inner", "places", "parameters"), [
    (4096, 16384, 3, 315_146_240), (1024, 16384, 4, 268_013_568), (2048, 5120, 4, 110_358_528)])
def test_sizes_are_those_of_the_authors_networks(width, inner, places, parameters):
    edited = [Matrix(f"{place}.{name}", "decoder", *shape) for place in range(places)
              for name, shape in (("up", (width, inner)), ("down", (inner, width)))]
    with torch.device("meta"):
        network = MendNetwork(edited, MendConfig(layers=(0,), steps=1, batch_size=1, learning_rate=1.0))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters + 2 * places
    assert network.modes == [place for place in range(places) for _ in range(2)]


def test_a_joint_edit_is_the_gradient_of_the_mean_loss(model):
    editor = untrained(model, norm=False)
    joint = editor.edit(REQUESTS)
    batch = model.collate([model.encode(r.prompt, r.target, end=True) for r in REQUESTS])
    factors = read_factors(model, matrices(model, editor.config), batch, model.states, total=len(batch.target))
    assert len(joint.terms) == len(factors)
    for term in joint.terms:
        x, grad, _ = factors[term.module]
        close(term.a @ term.b.T, 0.25 * torch.einsum("eto,eti->oi", grad, x))
    in_parts = MEND(model, config_for(model, norm=False, edits_at_once=2), editor.resources).edit(REQUESTS)
    for term, part in zip(joint.terms, in_parts.terms, strict=True):
        close(term.a @ term.b.T, part.a @ part.b.T)


def test_a_joint_edit_of_summed_losses_is_the_sum_of_the_edits(model):
    config = config_for(model, joint_loss="sum")
    editor = MEND(model, config, untrained(model).resources)
    joint, alone = editor.edit(REQUESTS), editor.edit_each(REQUESTS)
    for number, term in enumerate(joint.terms):
        close(term.a @ term.b.T, sum(patch.terms[number].a @ patch.terms[number].b.T for patch in alone), 1e-4)


def test_it_learns_to_edit(model):
    config = config_for(model, steps=60, batch_size=8, learning_rate=1e-3, alpha_learning_rate=1e-3, alpha=1e-3,
                        sign="-", locality_weight=0.1)
    losses = []
    artefact = MEND.train(model, config, EXAMPLES, on_step=lambda _, loss: losses.append(loss))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert artefact.tensors["transforms.32 to 64.layers.0.u"].dtype == torch.float16
    editor = MEND(model, config, Resources(artefact=artefact))
    batch = model.collate([model.encode(EXAMPLES[0].request.prompt, EXAMPLES[0].request.target, end=True)])
    before = torch.nn.functional.cross_entropy(model.target_logits(batch), batch.target)
    with overlay(model, editor.edit_each([EXAMPLES[0].request])[0]):
        after = torch.nn.functional.cross_entropy(model.target_logits(batch), batch.target)
    assert float(after) < 0.8 * float(before)


def test_a_network_at_the_identity_can_leave_it(tiny_gptj):
    config = config_for(tiny_gptj)
    torch.manual_seed(0)
    network = MendNetwork(matrices(tiny_gptj, config), config)
    factors = HyperTrainee(tiny_gptj, config, network).factors(REQUESTS)
    sum(update.a.sum() + update.b.sum() for update in network(factors, REQUESTS).values()).backward()
    assert all(transform.layers[0].u.grad.abs().sum() > 0 for transform in network.transforms.values())


def test_a_neuron_that_never_fired_does_not_blow_up():
    transform = Transform(2, 1, rank=2, modes=1)
    tokens = torch.randn(50, 3)
    tokens[:, 1] = 0.0
    with torch.no_grad():
        transform.standardise(tokens)
    assert float(transform.std[1]) == pytest.approx(0.005 * float(transform.std[0]), rel=0.02)
