"""Final states where targets are predicted, when FFNs compute only the positions that count, against whole passes."""

from __future__ import annotations

import pytest
import torch
from support.families import FAMILIES, VARIANTS, tiny

from editors.core.models.batches import BlockRef
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.models.sparing import Places, only_first, only_real, only_targets
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import LowRank, Neurons, Patch

ROWS = [("What is the birthplace of Budrer Vadolm?", "so many words"), ("It", "was"), ("Ann Lee lives", "here, or not")]
ON = [0, -1, 1]


def patches_of(model):
    """One on the inner maps of the last FFN, one on the FFN as a whole, both on a block below."""
    generator = torch.Generator().manual_seed(1)

    def low(path):
        out, inner = model.matrix(path)
        return LowRank(path, torch.randn(out, 2, generator=generator), torch.randn(inner, 2, generator=generator) / 4)

    last = model.depth - 1
    neurons = Neurons(model.ffn_path(last), torch.randn(3, model.width, generator=generator),
                      torch.randn(model.width, 3, generator=generator), "relu")
    return [Patch((low(model.up_path(last)), low(model.down_path(last)), low(model.down_path(1)))),
            Patch((neurons, low(model.down_path(1))))]


@pytest.mark.parametrize("name", [*FAMILIES, *VARIANTS])
def test_equals_a_whole_pass_in_every_family(name):
    model = tiny(name)
    batch = model.collate([model.encode(*row) for row in ROWS], "left" if name == "gpt2" else "right")
    patches, last = patches_of(model), model.depth - 1
    more = torch.zeros(3, model.width, requires_grad=True)
    found = []
    for spared in (False, True):
        with torch.no_grad():
            hidden = model.run_to(batch, BlockRef("decoder", 1))
        with overlay(model, patches, ON), capture_inputs(model, [model.down_path(last)]) as inputs:
            if spared:
                with only_targets(model, Places.of(batch)):
                    states = model.run_from(hidden + more[:, None], batch, BlockRef("decoder", 1))
            else:
                states = model.run_from(hidden + more[:, None], batch, BlockRef("decoder", 1))
        nll = model.target_nll(states, batch)
        found.append((nll, *torch.autograd.grad(nll.sum(), more)))
    assert inputs[model.down_path(last)].shape[1] == torch.bincount(batch.row).max() < batch.input_ids.shape[1]
    for spared, whole in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(spared, whole, atol=2e-5, rtol=1e-4)
    with torch.no_grad(), overlay(model, patches, ON):
        torch.testing.assert_close(model.target_nll(model.states(batch), batch), found[0][0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [*FAMILIES, *VARIANTS])
@pytest.mark.parametrize("patched", [False, True])
def test_padding_is_spared_but_where_patches_are_put_on_by_row(name, patched):
    """States and gradients are those of a whole pass; FFNs see tokens one behind the other."""
    model = tiny(name)
    batch = model.collate([model.encode(*row) for row in ROWS], "left" if name == "gpt2" else "right")
    patches, spared = patches_of(model) if patched else [], Places.of(batch)
    downs = [model.down_path(layer) for layer in range(model.depth)]
    more = torch.zeros(3, model.width, requires_grad=True)
    with torch.no_grad():
        hidden = model.run_to(batch, BlockRef("decoder", 1))
    found = []
    for places in (None, spared):
        with (overlay(model, patches, ON if patched else [-1] * 3), only_real(model, places, patches, 1),
              capture_inputs(model, downs) as inputs):
            states = model.run_from(hidden + more[:, None], batch, BlockRef("decoder", 1))
        nll = model.target_nll(states, batch)
        found.append((states[batch.attention_mask.bool()], *torch.autograd.grad(nll.sum(), more)))
    for one, other in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    shapes, (rows, length) = [tuple(inputs[path].shape[:2]) for path in downs[1:]], batch.input_ids.shape
    whole = [1, model.depth - 1] if patched else [model.depth - 1]
    assert len(spared.real) == sum(len(model.encode(*row)) for row in ROWS) < rows * length
    assert shapes == [(rows, length) if layer in whole else (1, len(spared.real)) for layer in range(1, model.depth)]


def test_padding_that_is_little_is_not_spared(tiny_gptj):
    rows = [tiny_gptj.encode("Where is the house of Ann Lee?", "here")] * 19
    assert Places.of(tiny_gptj.collate(rows)).real is None
    batch = tiny_gptj.collate([*rows, tiny_gptj.encode("It", "was"), tiny_gptj.encode("X", "y")])
    assert len(Places.of(batch).real) == batch.attention_mask.sum()
    suffix, _ = batch.suffix(batch.first_position)  # whose mask has the cached tokens, too
    own = suffix.attention_mask[:, -suffix.input_ids.shape[1]:]
    assert torch.equal(Places.of(suffix).real, own.flatten().nonzero().flatten())


def test_places_of_rows_with_none_and_of_equal_ones(tiny_gptj):
    batch = tiny_gptj.collate([tiny_gptj.encode("A long prompt of words", "two words or more"), tiny_gptj.encode("It"),
                               tiny_gptj.encode("Where?", "there")])
    places = Places.of(batch)
    real = places.put < places.length
    rows, numbers = real.nonzero().unbind(1)
    assert list(zip(rows.tolist(), places.put[rows, numbers].tolist(), strict=True)) == \
        list(zip(batch.row.tolist(), batch.position.tolist(), strict=True))
    assert not real[1].any()
    assert torch.equal(places.taken[real], places.put[real])


def test_a_decoder_behind_an_encoder_is_left_alone(tiny_t5):
    batch = tiny_t5.collate([tiny_t5.encode("Where is it?", "here or there"), tiny_t5.encode("X", "y")])
    with torch.no_grad():
        whole = tiny_t5.states(batch)
        with only_targets(tiny_t5, Places.of(batch)):
            assert torch.equal(tiny_t5.states(batch), whole)


@pytest.mark.parametrize("name", [*FAMILIES, *VARIANTS])
def test_of_parallel_blocks_alone_an_ffn_gives_the_same_where_nothing_entered_anew(name):
    model = tiny(name)
    batch, ffn = model.collate([model.encode(*row) for row in ROWS]), model.ffn_path(1)
    with torch.no_grad():
        hidden = model.run_to(batch, BlockRef("decoder", 1))
        with capture_outputs(model, [ffn]) as outputs:
            model.run_from(hidden, batch, BlockRef("decoder", 1))
            known = outputs[ffn]
            moved = hidden.clone()
            moved[:, 0] += torch.randn(model.width, generator=torch.Generator().manual_seed(1))
            whole = model.run_from(moved, batch, BlockRef("decoder", 1))
        assert model.parallel == torch.equal(outputs[ffn][:, 1:], known[:, 1:])
        assert not torch.equal(outputs[ffn][:, 0], known[:, 0])
        with capture_inputs(model, [model.down_path(1)]) as inputs, only_first(model, 1, known):
            spared = model.run_from(moved, batch, BlockRef("decoder", 1))
    assert inputs[model.down_path(1)].shape[1] == 1
    assert torch.allclose(spared, whole, atol=1e-5) == model.parallel


def test_a_gradient_passes_a_spared_ffn(tiny_gptj):
    batch = tiny_gptj.collate([tiny_gptj.encode(*row) for row in ROWS])
    with torch.no_grad():
        hidden = tiny_gptj.run_to(batch, BlockRef("decoder", 1))
        with capture_outputs(tiny_gptj, [tiny_gptj.ffn_path(1)]) as outputs:
            tiny_gptj.run_from(hidden, batch, BlockRef("decoder", 1))
    found = []
    for known in (None, outputs[tiny_gptj.ffn_path(1)]):
        first = hidden[:, 0].clone().requires_grad_()
        with only_first(tiny_gptj, 1, known):
            states = tiny_gptj.run_from(torch.cat([first[:, None], hidden[:, 1:]], 1), batch, BlockRef("decoder", 1))
        found.append(torch.autograd.grad(tiny_gptj.target_nll(states, batch).sum(), first)[0])
    torch.testing.assert_close(found[1], found[0])
