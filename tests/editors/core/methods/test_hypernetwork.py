"""Factors are the weights' gradients, cached rows are whole forward passes, and the training loss is the stated one."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from support.hyper_examples import close
from torch import nn

from editors.core.editor import Resources
from editors.core.errors import InputError
from editors.core.examples import Example, Question
from editors.core.methods.hyper_editor import HyperTrainee, PartRuns
from editors.core.methods.hypernetwork import Update, first_block, matrices, patches, read_factors, updated
from editors.core.models.batches import BlockRef
from editors.core.patches.overlay import overlay
from editors.core.requests import EditRequest
from editors.mend import MEND, MendConfig, MendNetwork

REQUESTS = [
    EditRequest("What is the birthplace of Budrer Vadolm?", "Budrer Vadolm", "a long answer of many words", "Vadolm"),
    EditRequest("X", "X", "so", "Paris"),
    EditRequest("Who employs the one and only Zed Corman, whom all know?", "Zed Corman", "Vard and Sons", "Omerga"),
]
EXAMPLES = [Example(request, ("Say it again:", f"And {request.subject}?"),
                    (Question("It was", "so long"), Question("Where does Ann live?", "Omerga")))
            for request in REQUESTS]


def config_for(model, **overrides):
    settings = {"layers": (1, 2), "encoder_layers": (2, 1) if model.has_encoder else (), "steps": 2, "batch_size": 2,
                "learning_rate": 1e-3, "rank": 8, "validation_examples": 1, "validate_every": 1, "sign": "-"}
    return MendConfig(**{**settings, **overrides})


def rows_of(model, requests=REQUESTS):
    return [model.encode(request.prompt, request.target, end=True) for request in requests]


def trainable(model, edited):
    """A copy of the model whose edited weights take gradients."""
    twin = copy.copy(model)
    twin.module = copy.deepcopy(model.module)
    return twin, {matrix.path: twin.submodule(matrix.path).weight.requires_grad_() for matrix in edited}


def test_factors_are_the_gradients_of_the_weights(model):
    edited = matrices(model, config_for(model))
    batch = model.collate(rows_of(model))
    alone = read_factors(model, edited, batch, model.states)
    mean = read_factors(model, edited, batch, model.states, total=len(batch.target))
    twin, weights = trainable(model, edited)
    for number, row in enumerate(rows_of(model)):
        single = model.collate([row])
        loss = nn.functional.cross_entropy(twin.target_logits(single), single.target)
        for matrix, expected in zip(edited, torch.autograd.grad(loss, list(weights.values())), strict=True):
            x, grad, real = alone[matrix.path]
            assert bool(((x != 0).any(-1) | ~real).all()) and not x[~real].any() and not grad[~real].any()
            close(grad[number].T @ x[number], expected)
    loss = nn.functional.cross_entropy(twin.target_logits(batch), batch.target)
    for matrix, expected in zip(edited, torch.autograd.grad(loss, list(weights.values())), strict=True):
        x, grad, _ = mean[matrix.path]
        close(torch.einsum("eto,eti->oi", grad, x), expected)


def test_the_last_block_has_factors_at_target_positions_alone(tiny_gptj):
    config = config_for(tiny_gptj, layers=(3,))
    batch = tiny_gptj.collate(rows_of(tiny_gptj))
    for factors in read_factors(tiny_gptj, matrices(tiny_gptj, config), batch, tiny_gptj.states).values():
        assert factors.real.nonzero().tolist() == torch.stack([batch.row, batch.position], 1).tolist()


def test_the_loss_is_the_one_that_transformers_takes(model):
    row = rows_of(model)[0]
    batch = model.collate([row])
    ours = model.target_nll(model.states(batch), batch).mean()
    if model.has_encoder:
        assert row.target[-1] == model.module.config.eos_token_id
        theirs = model.module(input_ids=torch.tensor([row.prompt]), labels=torch.tensor([row.target])).loss
    else:
        ids = torch.tensor([row.prompt + row.target])
        labels = ids.clone()
        labels[:, : len(row.prompt)] = -100
        logits = model.module(ids).logits
        theirs = nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:])
        close(theirs, model.module(ids, labels=labels).loss)
    close(ours, theirs)


def test_cached_rows_go_on_as_the_whole_model(model):
    for layers in ({}, {"encoder_layers": ()}):
        config = config_for(model, **layers)
        part_runs = PartRuns(model, first_block(model, config), 10**6)
        rows = rows_of(model)
        part_runs.batch(rows[1:])
        left = part_runs.left
        batch, hidden = part_runs.batch([*rows, rows[1]])
        assert left > part_runs.left and part_runs.batch(rows[:1])[1].shape[0] == 1
        states = part_runs.run_from(hidden, batch)
        whole = model.collate([*rows, rows[1]])
        at = whole.row, whole.position
        close(states[at], model.states(whole)[at])
        close(part_runs.log_probs([rows[2], rows[0], rows[2]]),
              model.target_logits(model.collate([rows[2], rows[0], rows[2]])).log_softmax(-1))


def test_a_full_cache_only_costs_time(model):
    config = config_for(model)
    small, large = (PartRuns(model, first_block(model, config), limit) for limit in (0, 10**6))
    rows = rows_of(model)
    for _ in range(2):
        close(small.batch(rows)[1], large.batch(rows)[1])
        close(small.log_probs(rows), large.log_probs(rows))
    assert small.left == 0 and not small._hidden and not small._states


def random_updates(model, config, edits, rank=20):
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(edits, rank, generator=generator) < 0.5
    return {matrix.path: Update(*(torch.randn(edits, rank, size, generator=generator) * 0.1 * real[..., None]
                                  for size in (matrix.outputs, matrix.inputs)), real)
            for matrix in matrices(model, config)}


def test_updates_in_training_are_the_patches_of_editing(model):
    config = config_for(model)
    updates = random_updates(model, config, edits=2)
    rows = torch.tensor([1, 0, 1])
    batch = model.collate(rows_of(model))
    with updated(model, updates, rows):
        inside = model.target_logits(batch)
    made = patches(updates, {"editor": "x"})
    assert made[0].terms[0].a.shape[1] == int(next(iter(updates.values())).real[0].sum())
    with overlay(model, made, rows.tolist()):
        close(inside, model.target_logits(batch), 1e-4)
    assert not torch.equal(inside, model.target_logits(batch))


@pytest.mark.parametrize("outer", ["rephrase", "inner"])
def test_the_training_loss_is_that_of_weights_changed_by_hand(model, outer):
    config = config_for(model, outer=outer, unchanged=2, edit_weight=0.3, locality_weight=2.0, norm=False)
    torch.manual_seed(0)
    trainee = HyperTrainee(model, config, MendNetwork(matrices(model, config), config))
    with torch.no_grad():
        trainee.module.alpha.fill_(0.5)
    examples = [example if outer == "inner" else Example(example.request, example.paraphrases[:1], example.unchanged)
                for example in EXAMPLES]
    [loss] = trainee.losses(examples, random.Random(0))
    nll = kl = 0.0
    for example in examples:
        request = example.request
        made = patches(trainee.module(trainee.factors([request]), [request]), {})[0]
        edited = copy.copy(model)
        edited.module = copy.deepcopy(model.module)
        for term in made.terms:
            edited.submodule(term.module).weight += term.a @ term.b.T
        prompt = request.prompt if outer == "inner" else example.paraphrases[0]
        batch = model.collate([model.encode(prompt, request.target, end=True)])
        nll += nn.functional.cross_entropy(edited.target_logits(batch), batch.target) / len(examples)
        for question in example.unchanged:
            batch = model.collate([model.encode(question.prompt, question.target, end=True)])
            before, after = (each.target_logits(batch).log_softmax(-1) for each in (model, edited))
            kl += (before.exp() * (before - after)).sum(-1).mean() / (2 * len(examples))
    assert float(kl) > 1e-5
    close(loss, 0.3 * nll + 2.0 * kl, 1e-4)
    assert trainee.validation_loss(examples, random.Random(0)) > 0
    loss.backward()
    assert trainee.module.alpha.grad.abs().min() > 0


def test_examples_may_lack_paraphrases_and_questions(tiny_gptj):
    config = config_for(tiny_gptj)
    trainee = HyperTrainee(tiny_gptj, config, MendNetwork(matrices(tiny_gptj, config), config))
    bare = [Example(request) for request in REQUESTS]
    with torch.no_grad():
        trainee.module.alpha.zero_()
    assert float(sum(trainee.losses(bare, random.Random(0)))) == pytest.approx(0.1 * sum(
        float(tiny_gptj.target_nll(tiny_gptj.states(batch), batch).mean()) for batch in
        (tiny_gptj.collate([row]) for row in rows_of(tiny_gptj))) / 3, rel=1e-4)
    mixed = [bare[0], EXAMPLES[1]]
    assert sum(trainee.losses(mixed, random.Random(0))).isfinite()


def test_where_edits_begin(tiny_gptj, tiny_t5):
    assert first_block(tiny_gptj, config_for(tiny_gptj)) == BlockRef("decoder", 1)
    assert first_block(tiny_t5, config_for(tiny_t5)) == BlockRef("encoder", 1)
    assert first_block(tiny_t5, config_for(tiny_t5, encoder_layers=())) == BlockRef("encoder", 3)
    with pytest.raises(InputError, match="decoder-only"):
        matrices(tiny_gptj, config_for(tiny_gptj, encoder_layers=(1,)))


def test_edited_are_both_projections_and_of_a_gated_ffn_the_gate(tiny_gated_t5):
    found = [(matrix.path, matrix.inputs, matrix.outputs) for matrix in
             matrices(tiny_gated_t5, config_for(tiny_gated_t5, layers=(2, 2), encoder_layers=(1,)))]
    assert found == [("encoder.block.1.layer.1.DenseReluDense.wi_0", 32, 64),
                     ("encoder.block.1.layer.1.DenseReluDense.wo", 64, 32),
                     ("decoder.block.2.layer.2.DenseReluDense.wi_0", 32, 64),
                     ("decoder.block.2.layer.2.DenseReluDense.wo", 64, 32)]


def test_an_artefact_keeps_the_shape_it_was_trained_in(model, tmp_path):
    """What the configuration says of the network now does not matter, only how many edits are made at once."""
    artefact = MEND.train(model, config_for(model), EXAMPLES * 2)
    other = MEND(model, config_for(model, layers=(0,), rank=4, edits_at_once=1), Resources(artefact=artefact))
    same = MEND(model, config_for(model), Resources(artefact=artefact))
    for left, right in zip(other.edit_each(REQUESTS), same.edit_each(REQUESTS), strict=True):
        assert [term.module for term in left.terms] == [term.module for term in right.terms]
        for one, two in zip(left.terms, right.terms, strict=True):
            close(one.a @ one.b.T, two.a @ two.b.T, 1e-4)
