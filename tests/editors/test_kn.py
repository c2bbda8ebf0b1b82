"""KN against plain full forward passes with a hook that replaces the neurons, and against weights changed by hand."""

import copy
from dataclasses import replace

import pytest
import torch
from support.families import FAMILIES, VARIANTS, tiny

from editors.core.errors import InputError
from editors.core.models.batches import Encoded
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import LowRank, Patch
from editors.kn import KnowledgeNeurons, KnowledgeNeuronsConfig, attribute

MODELS = ["tiny_gptj", "tiny_t5", "tiny_gated_t5", "tiny_deep_encoder", "tiny_deep_decoder"]
OLD = ["Rome", None, "Bibor Motors of Vadolm", "a small town", " ", "Mirel"]


@pytest.fixture(params=MODELS)
def model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def replacements(requests):
    """Requests that know the answer they replace, of one token or more, and two that do not."""
    return [replace(request, target_true=old) for request, old in zip(requests, OLD, strict=True)]


def kn(model, **overrides):
    return KnowledgeNeurons(model, KnowledgeNeuronsConfig(**{"steps": 5, **overrides}))


def located(patch):
    return {(term.module, j) for term in patch.terms for j in term.b[:, 0].nonzero().flatten().tolist()}


class Plain:
    """Dai et al. 2022, section 3 word by word: one fact, one layer, one scale at a time, the whole model run."""

    def __init__(self, model, editor):
        self.model, self.reference, self.steps = model, editor.config.mode == "reference", editor.config.steps
        self.pre = self.reference and not model.gated

    def runs(self, fact):
        """The inputs of each probability that is read: (model inputs, positions scaled, [(position, token)])."""
        prompt, old = torch.tensor([fact.row.prompt]), torch.tensor([fact.row.target])
        if self.model.has_encoder:
            shifted = torch.cat([torch.zeros(1, 1, dtype=torch.long), old[:, :-1]], 1)
            inputs = {"input_ids": prompt, "decoder_input_ids": old if self.reference else shifted}
            return [(inputs, list(range(old.shape[1])), list(enumerate(fact.row.target)))]
        last = prompt.shape[1] - 1
        if self.reference:
            return [({"input_ids": prompt}, [last], [(last, token)]) for token in fact.row.target]
        return [({"input_ids": torch.cat([prompt, old[:, :t]], 1)}, [last + t], [(last + t, token)])
                for t, token in enumerate(fact.row.target)]

    def probability(self, layer, run, change):
        """Mean probability of the tokens read, the neurons at the scaled positions being `change(neurons)`; and
        these."""
        inputs, positions, reads = run
        at, changed = torch.tensor(positions), []

        def swap(values):
            changed.append(change(values[:, at].detach()))
            return values.index_copy(1, at, changed[0])

        if self.pre:
            up = self.model.submodule(self.model.up_path(layer))
            handle = up.register_forward_hook(lambda _module, _args, output: swap(output))
        else:
            down = self.model.submodule(self.model.down_path(layer))
            handle = down.register_forward_pre_hook(lambda _module, args: (swap(args[0]),))
        try:
            logits = self.model.module(**inputs).logits[0]
        finally:
            handle.remove()
        return torch.stack([logits[position].softmax(-1)[token] for position, token in reads]).mean(), changed

    def score(self, layer, fact):
        scores = []
        for run in self.runs(fact):
            gradients = [self.gradient(layer, run, scale) for scale in torch.linspace(0, 1, self.steps)]
            [neurons] = self.probability(layer, run, lambda values: values)[1]
            scores.append((neurons * torch.stack(gradients).sum(0) / self.steps)[0].sum(0))
        return torch.stack(scores).mean(0)

    def gradient(self, layer, run, scale):
        probability, [scaled] = self.probability(layer, run, lambda values: (values * scale).requires_grad_())
        return torch.autograd.grad(probability, scaled)[0]


@pytest.mark.parametrize("mode", ["fixed", "reference"])
def test_cached_attribution_equals_full_forward_passes(model, replacements, mode):
    editor = kn(model, mode=mode)
    facts = editor._facts(replacements)
    plain = Plain(model, editor)
    for fact, scores in zip(facts, attribute(model, facts, editor.config)[0], strict=True):
        expected = torch.stack([plain.score(layer, fact) for layer in range(model.depth)])
        scale = expected.abs().max()
        torch.testing.assert_close(scores / scale, expected / scale, atol=1e-5, rtol=1e-4)


def test_attribution_sees_an_edit_already_made(model, replacements):
    generator = torch.Generator().manual_seed(0)
    inner = model.submodule(model.down_path(1)).in_features
    earlier = Patch((LowRank(model.down_path(1), torch.randn(model.width, 1, generator=generator),
                             torch.randn(inner, 1, generator=generator)),))
    editor = kn(model)
    facts = editor._facts(replacements[:1])
    with overlay(model, earlier):
        scores = attribute(model, facts, editor.config)[0][0]
        expected = torch.stack([Plain(model, editor).score(layer, facts[0]) for layer in range(model.depth)])
    torch.testing.assert_close(scores / expected.abs().max(), expected / expected.abs().max(), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(scores, attribute(model, facts, editor.config)[0][0], rtol=1e-2)


@pytest.mark.parametrize("mode", ["fixed", "reference"])
def test_a_layers_scores_add_up_to_what_its_neurons_do_to_the_answer(model, replacements, mode):
    """Completeness of integrated gradients: P with the layer's neurons minus P with all of them at zero."""
    editor = kn(model, mode=mode, steps=400)
    facts = editor._facts(replacements)[:3]
    plain = Plain(model, editor)
    for fact, scores in zip(facts, attribute(model, facts, editor.config)[0], strict=True):
        for layer in range(model.depth):
            runs = plain.runs(fact)
            with torch.no_grad():
                effect = [plain.probability(layer, run, lambda v: v)[0]
                          - plain.probability(layer, run, torch.zeros_like)[0] for run in runs]
            size = scores[layer].abs().sum()
            assert scores[layer].sum() / size == pytest.approx(float(sum(effect) / len(effect) / size), abs=5e-3)


def test_old_and_new_answers_are_read_as_the_mode_says(tiny_gptj, replacements):
    request = replacements[2]
    ids = torch.tensor([tiny_gptj.encode(request.prompt).prompt])
    likely = int(tiny_gptj.module(input_ids=ids).logits[0, -1].argmax())
    tokenise = tiny_gptj.tokenise
    spaced, bare = kn(tiny_gptj)._facts([request])[0], kn(tiny_gptj, mode="reference")._facts([request])[0]
    assert (spaced.row.target, spaced.removed) == (tokenise(" Bibor Motors of Vadolm"),) * 2
    assert (bare.row.target, bare.removed) == (tokenise("Bibor Motors of Vadolm"), (likely,))
    assert (spaced.added, bare.added) == (tokenise(" Bibor Motors"), tokenise("Bibor Motors"))
    unknown = kn(tiny_gptj)._facts([replace(request, target_true=None)])[0]
    assert unknown.row.target == unknown.removed == (likely,)


@pytest.mark.parametrize(("embedding", "path"), [("input", "transformer.wte"), ("output", "lm_head")])
def test_old_embeddings_are_taken_and_new_ones_added(tiny_gptj, replacements, embedding, path):
    editor = kn(tiny_gptj, old_scale=-3.0, new_scale=0.5, embedding=embedding)
    rows, fact = tiny_gptj.submodule(path).weight, editor._facts(replacements[2:3])[0]
    expected = -3.0 * sum(rows[token] for token in fact.removed) + 0.5 * sum(rows[token] for token in fact.added)
    terms = editor.edit_each(replacements[2:3])[0].terms
    assert terms
    for term in terms:
        torch.testing.assert_close(term.a[:, 0], expected)


def test_neurons_above_the_share_of_the_highest_score_are_located(model, replacements):
    editor = kn(model, threshold=0.3)
    scores = attribute(model, editor._facts(replacements[:1]), editor.config)[0][0]
    chosen = {(model.down_path(layer), j) for layer in range(model.depth) for j in range(scores.shape[1])
              if scores[layer, j] > 0.3 * scores.max()}
    patch = editor.edit_each(replacements[:1])[0]
    assert located(patch) == chosen
    assert patch.info["neurons"] == len(chosen)
    assert len(located(kn(model, threshold=0.6).edit_each(replacements[:1])[0])) < len(chosen)


def test_the_first_token_stands_for_an_answer(model, replacements):
    request, tokenise = replacements[2], model.tokenise
    fact = kn(model, target="first")._facts([request])[0]
    assert (fact.row.target, fact.removed) == (tokenise(" Bibor Motors of Vadolm")[:1],) * 2
    assert fact.added == tokenise(" Bibor Motors")[:1]


def test_signed_writes_make_every_located_neuron_speak_for_the_new_answer(model, replacements):
    """Where the first old token is predicted, each neuron j adds |w_j| c."""
    plain, signed = (kn(model, signed=signed).edit_each(replacements[2:3])[0] for signed in (False, True))
    prompt = model.encode(replacements[2].prompt, "so").prompt
    batch = model.collate([Encoded(prompt, (0,))])
    assert located(plain) == located(signed)
    seen = set()
    for one, other in zip(plain.terms, signed.terms, strict=True):
        with capture_inputs(model, [one.module]) as inputs:
            model.states(batch)
        neurons = inputs[one.module][batch.row, batch.position][0]
        torch.testing.assert_close(neurons * other.b[:, 0], neurons.abs() * one.b[:, 0])
        seen |= set(other.b.unique().tolist())
    assert seen >= ({-1.0, 1.0} if model.activation != "relu" else {1.0})


def test_a_patched_model_is_one_whose_columns_were_changed(model, replacements):
    request = replacements[0]
    patch = kn(model).edit_each([request])[0]
    fact = kn(model)._facts([request])[0]
    embeddings = model.module.get_input_embeddings().weight
    change = -2 * embeddings[list(fact.removed)].sum(0) + embeddings[list(fact.added)].sum(0)
    changed = copy.copy(model)
    changed.module = copy.deepcopy(model.module)
    with torch.no_grad():
        for path, neuron in located(patch):
            changed.submodule(path).weight[:, neuron] += change
    batch = model.collate([model.encode(request.prompt, request.target)])
    with overlay(model, patch):
        found = model.target_logits(batch)
    expected = changed.target_logits(batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected, model.target_logits(batch), atol=1e-3)


@pytest.mark.parametrize("mode", ["fixed", "reference"])
def test_one_edit_in_a_batch_is_the_edit_alone(model, replacements, mode):
    editor = kn(model, mode=mode)
    for request, patch in zip(replacements, editor.edit_each(replacements), strict=True):
        alone = editor.edit_each([request])[0]
        assert located(patch) == located(alone) != set()
        for one, other in zip(patch.terms, alone.terms, strict=True):
            torch.testing.assert_close(one.a, other.a)
        assert patch.info["highest_score"] == pytest.approx(alone.info["highest_score"], rel=1e-4)


def test_a_small_token_budget_changes_nothing(model, replacements):
    editor = kn(model)
    facts = editor._facts(replacements)
    whole, _ = attribute(model, facts, editor.config)
    split, _ = attribute(model, facts, kn(model, batch_tokens=1).config)
    torch.testing.assert_close(whole / whole.abs().max(), split / whole.abs().max(), atol=1e-5, rtol=1e-4)
    patches = kn(model, batch_tokens=1).edit_each(replacements)
    assert [located(patch) for patch in patches] == [located(patch) for patch in editor.edit_each(replacements)]


@pytest.mark.parametrize("name", [*FAMILIES, *VARIANTS])
def test_scales_as_tokens_of_one_row_are_scales_in_rows_of_their_own(name, replacements, monkeypatch):
    """And none is put into one where positions are counted along it."""
    model, widest = tiny(name), []
    run = model.run_from
    monkeypatch.setattr(model, "run_from", lambda hidden, *rest: widest.append(hidden.shape[1]) or run(hidden, *rest))
    editor = kn(model, batch_tokens=8192)
    facts = editor._facts(replacements)
    scores, neurons = attribute(model, facts, editor.config)
    assert max(widest) == (1 if name == "falcon rw" else editor.config.steps)
    widest.clear()
    monkeypatch.setattr("editors.kn._beside", lambda model: False)
    expected, same = attribute(model, facts, editor.config)
    assert set(widest) == {1} and torch.equal(neurons, same)
    torch.testing.assert_close(scores / expected.abs().max(), expected / expected.abs().max(), atol=1e-5, rtol=1e-4)


def test_only_the_blocks_above_a_layer_are_run_again(tiny_gptj, replacements):
    """`depth` times one pass over one token per scale: what makes KN affordable."""
    tokens = dict.fromkeys(range(tiny_gptj.depth), 0)
    handles = []
    for layer in tokens:
        def count(_module, args, _output, layer=layer):
            tokens[layer] += args[0].shape[0] * args[0].shape[1]
        handles.append(tiny_gptj.submodule(tiny_gptj.ffn_path(layer)).register_forward_hook(count))
    editor = kn(tiny_gptj)
    facts = editor._facts(replacements[:1])
    try:
        tokens.update(dict.fromkeys(tokens, 0))
        attribute(tiny_gptj, facts, editor.config)
    finally:
        for handle in handles:
            handle.remove()
    targets, length = len(facts[0].row.target), len(facts[0].row)
    assert tokens == {layer: length + layer * editor.config.steps * targets for layer in tokens}


def test_a_fact_no_neuron_speaks_for_yields_an_empty_patch(tiny_gptj, replacements):
    editor = kn(tiny_gptj)
    fact = editor._facts(replacements[:1])[0]
    patch = editor._rewrite(fact, -torch.rand(tiny_gptj.depth, 64), torch.ones(tiny_gptj.depth, 64))
    assert not patch and patch.info["neurons"] == 0


def test_no_request_no_patch_and_no_joint_edit(tiny_gptj, replacements):
    editor = kn(tiny_gptj)
    assert editor.edit_each([]) == []
    assert not editor.edit([])
    with pytest.raises(InputError, match="one edit at a time"):
        editor.edit(replacements)


def test_the_model_is_left_as_it_was(model, replacements):
    batch = model.collate([model.encode("Art met Bo in", "red")])
    before = model.target_logits(batch)
    kn(model).edit_each(replacements)
    assert torch.equal(before, model.target_logits(batch))
    with capture_outputs(model, [model.down_path(0)]) as outputs:
        model.states(batch)
    assert not outputs[model.down_path(0)].requires_grad
