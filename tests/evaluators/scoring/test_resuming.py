"""Passes that begin at the lowest edited block against whole ones."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from support.families import FAMILIES, tiny
from support.routes import HIT_A, MISS, A, map_side, other

from editors.core.models.batches import BlockRef
from editors.core.models.kept import Entering, KeptStates
from editors.core.models.work import DONE
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Dense, LowRank, Neurons, Patch, Route
from evaluators.cases import Case, Probe
from evaluators.scoring.observe import observe
from evaluators.scoring.resuming import added_to, lowest_block, resume

ROWS = [("What is the birthplace of Ann?", "so many words"), ("It", "was"), ("Ann Lee lives", "here"), ("X", "a b c")]
ON = [0, 1, -1, 1]


def low(model, layer, stack="decoder", seed=0):
    path = model.down_path(layer, stack)
    generator = torch.Generator().manual_seed(seed + layer)
    out, inner = model.matrix(path)
    return LowRank(path, torch.randn(out, 1, generator=generator), torch.randn(inner, 1, generator=generator) / 5)


def whole(model, rows, patches):
    """Every row by a pass of its own, from the start."""
    logits = []
    for row, on in zip(rows, ON, strict=True):
        with torch.no_grad(), overlay(model, patches[on] if on >= 0 else Patch()):
            logits.append(model.target_logits(model.collate([row])))
    return torch.cat(logits)


def resumed(model, rows, patches, padding="right"):
    with torch.no_grad():
        if model.kept is not None:
            model.kept.begin(sum(map(len, rows)))
        return resume(model, rows, padding, patches, ON)(ON)


@pytest.fixture
def keeping():
    """A model with a place for kept states, and without afterwards."""
    given = []

    def give(model):
        model = copy.copy(model)
        model.kept = KeptStates()
        given.append(model)
        return model

    return give


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("name", FAMILIES)
def test_equals_whole_passes_in_every_family(name, padding, keeping):
    model = keeping(tiny(name))
    rows = [model.encode(*row) for row in ROWS]
    for layers in ((1, 2), (2, 2), (2, 1)):  # from the start, on from what is kept, and from what is below
        patches = [Patch((low(model, layer),)) for layer in layers]
        assert lowest_block(model, patches) == ("decoder", min(layers))
        expected = whole(model, rows, patches)
        first = resumed(model, rows, patches, padding)
        torch.testing.assert_close(first, expected, atol=2e-5, rtol=1e-4)
        assert torch.equal(resumed(model, rows, patches, padding), first)  # to the bit
    assert (expected - whole(model, rows, [Patch(), Patch()])).abs().max() > 0.01


def neurons(model, layer, seed):
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, model.width, generator=generator), torch.randn(model.width, 2, generator=generator)
    return Neurons(model.ffn_path(layer), keys / 5, values, "relu")


def dense(model, layer, seed):
    path = model.down_path(layer)
    weight = torch.randn(*model.matrix(path), generator=torch.Generator().manual_seed(seed)) / 5
    return Dense(path, weight, torch.ones(len(weight)) / 5)


def shut(model, layer):
    """Makes a run of a block fail."""
    def fail(*_):
        raise AssertionError(f"block {layer} was run")

    return model.submodule(model.block_path(layer)).register_forward_pre_hook(fail)


@pytest.mark.parametrize("make", [neurons, dense, lambda model, layer, seed: low(model, layer, seed=seed)],
                         ids=["neurons", "dense", "low-rank"])
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("name", [*FAMILIES, "tiny_t5", "tiny_gated_t5"])
def test_the_lowest_edited_block_is_not_run_again(request, name, layer, make, keeping):
    model = keeping(request.getfixturevalue(name) if name.startswith("tiny") else tiny(name))
    rows = [model.encode(*row) for row in ROWS]
    patches = [Patch((make(model, layer, 1), low(model, 2))), Patch((make(model, layer, 2),))]
    if layer == 2:
        patches = [Patch(patch.terms[:1]) for patch in patches]
    expected = whole(model, rows, patches)
    first = resumed(model, rows, patches)
    torch.testing.assert_close(first, expected, atol=2e-5, rtol=1e-4)
    handle = shut(model, layer)
    try:
        assert torch.equal(resumed(model, rows, patches), first)  # to the bit
    finally:
        handle.remove()
    unedited = resume(model, rows, "right", patches, ON)([-1] * len(rows))
    torch.testing.assert_close(unedited, whole(model, rows, [Patch(), Patch()]), atol=2e-5, rtol=1e-4)
    assert (expected - unedited).abs().max() > 0.01


def test_what_else_an_edit_changes_of_the_lowest_block_has_it_run(tiny_gptj, keeping):
    path = tiny_gptj.down_path(1).replace("fc_out", "fc_in")
    out, width = tiny_gptj.matrix(path)
    up = LowRank(path, torch.randn(out, 1), torch.randn(width, 1))
    for second in (Patch((up,)), Patch((neurons(tiny_gptj, 1, 1),)), Patch((low(tiny_gptj, 1), up))):
        model = keeping(tiny_gptj)
        rows, patches = [model.encode(*row) for row in ROWS], [Patch((low(model, 1),)), second]
        assert added_to(model, patches, BlockRef("decoder", 1)) is None
        for _ in range(2):
            torch.testing.assert_close(resumed(model, rows, patches), whole(model, rows, patches), atol=2e-5, rtol=1e-4)


def test_the_lowest_block_is_run_again_where_what_it_reads_takes_too_much(tiny_gptj, keeping):
    rows = [tiny_gptj.encode(*row) for row in ROWS]
    patches = [Patch((low(tiny_gptj, 1, seed=seed),)) for seed in (1, 2)]
    sizes = {}
    for limit in (2**17, 2**29):
        model = keeping(tiny_gptj)
        model.kept = KeptStates(limit)
        torch.testing.assert_close(resumed(model, rows, patches), whole(model, rows, patches), atol=2e-5, rtol=1e-4)
        sizes[limit] = model.kept.nbytes
        at = model.kept.below(rows, "right", BlockRef("decoder", 2))
        assert at is not None and at[0].layer == (1 if limit == 2**17 else 2)
    inner, width = tiny_gptj.matrix(tiny_gptj.down_path(1))[::-1]
    assert sizes[2**29] * width == sizes[2**17] * (width + inner)  # what was read is counted, too


@pytest.mark.parametrize("kind", ["tiny_t5", "tiny_gated_t5"])
@pytest.mark.parametrize("places", [[("encoder", 1), ("decoder", 2)], [("decoder", 0)], [("decoder", 1)],
                                    [("encoder", 2)]])
def test_equals_whole_passes_behind_an_encoder(request, kind, places, keeping):
    model = keeping(request.getfixturevalue(kind))
    rows = [model.encode(*row, end=True) for row in ROWS]
    patches = [Patch(tuple(low(model, layer, stack, seed) for stack, layer in places)) for seed in (1, 2)]
    assert lowest_block(model, patches) == places[0]
    expected = whole(model, rows, patches)
    for _ in range(2):
        torch.testing.assert_close(resumed(model, rows, patches), expected, atol=2e-5, rtol=1e-4)


def test_what_is_kept_is_not_computed_again(tiny_gptj, keeping, cases):
    model = keeping(tiny_gptj)
    ask = partial(observe, model, cases)
    spent = []
    for layers in ((3, 3, 3), (3, 3, 3), (2, 3, 3), (3, 2, 2)):
        before = DONE.tokens
        ask([Patch((low(model, layer),)) for layer in layers], range(3))
        spent.append(DONE.tokens - before)
    assert spent[0] > 0 and spent[1] == 0  # no token was read from the start
    assert spent[2] == spent[0] and spent[3] == 0  # what is above the lowest block is of no use, what is below is


def test_observations_do_not_depend_on_what_was_asked_before(tiny_gptj, keeping, cases):
    patches = [Patch((low(tiny_gptj, layer),)) for layer in (3, 2, 3)]
    model = keeping(tiny_gptj)
    observe(model, cases, [Patch((low(model, 1),))] * 3, range(3))
    assert observe(model, cases, patches, range(3)) == observe(keeping(tiny_gptj), cases, patches, range(3))


@pytest.mark.parametrize("patch", [
    lambda model: Patch((low(model, 3), LowRank("lm_head", torch.zeros(2, 1), torch.zeros(2, 1)))),
    lambda model: Patch((low(model, 3), Route(side="s", memory=()))),
])
def test_passes_are_whole_where_an_edit_may_change_all(tiny_gptj, patch):
    assert lowest_block(tiny_gptj, [patch(tiny_gptj)]) is None


def test_passes_are_whole_on_a_model_that_is_edited(tiny_gptj):
    patches = [Patch((low(tiny_gptj, 3),))]
    with overlay(tiny_gptj, Patch((low(tiny_gptj, 0),))):
        assert lowest_block(tiny_gptj, patches) is None
    ffn = Neurons(tiny_gptj.ffn_path(2), torch.zeros(1, 32), torch.zeros(32, 1), "relu")
    assert lowest_block(tiny_gptj, [*patches, Patch((ffn,))]) == ("decoder", 2)
    assert lowest_block(tiny_gptj, [Patch()]) is None


def test_no_more_is_kept_than_fits(tiny_gptj):
    rows = [[tiny_gptj.encode(*row)] for row in ROWS]
    one, at = Entering(torch.zeros(1, 4, 8)), BlockRef("decoder", 1)
    kept = KeptStates(2 * one.nbytes)
    kept.begin(9)
    for row in rows[:3]:
        kept.keep(row, "right", at, one)
    assert kept.nbytes == kept.limit
    assert kept.below(rows[2], "right", at) is None  # the others are asked about still
    kept.begin(9)
    assert kept.below(rows[1], "right", at) == (at, one)
    kept.keep(rows[2], "right", at, one)  # in the place of the first
    assert kept.below(rows[0], "right", at) is None and kept.below(rows[1], "left", at) is None
    assert kept.below(rows[2], "right", BlockRef("decoder", 3)) == (at, one)
    assert kept.below(rows[2], "right", BlockRef("decoder", 0)) is None
    kept.clear()
    assert kept.nbytes == 0 and kept.below(rows[2], "right", at) is None


def test_what_is_routed_nowhere_is_answered_as_before(tiny_gptj, monkeypatch):
    model = copy.copy(tiny_gptj)
    model.sides = {"one": map_side(model, other(model))}
    case = Case(id="a", subject="A", prompt=A[0], target_new=A[1], target_true="Rome", paraphrases=(HIT_A[0],),
                unrelated=(Probe(prompt=MISS[0], target=MISS[1]), Probe(prompt="Beyond", target="so")))
    patch = Patch((Route(side="one", memory=(A,)),))
    kl = {"kl_roles": ("rewrite", "unrelated")}
    [before] = observe(model, [case], [], [-1], **kl)
    [asked] = observe(model, [case], [patch], [0], **kl)
    monkeypatch.setattr(model, "own_target_logits", None)  # whatever is asked of the model fails
    [told] = observe(model, [case], [patch], [0], before={"a": before})
    assert list(told.outputs) == list(asked.outputs)
    for key, outputs in told.outputs.items():
        assert outputs.predicted == asked.outputs[key].predicted and outputs.rank_first == asked.outputs[key].rank_first
        assert outputs.logprob == pytest.approx(asked.outputs[key].logprob, abs=1e-4)
        assert (outputs == before.outputs[key]) == (key.role == "unrelated")
    assert asked.outputs["unrelated", 0, "answer"].kl == pytest.approx(0, abs=1e-6)
