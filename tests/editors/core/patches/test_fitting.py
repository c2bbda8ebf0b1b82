"""A patch on a model that it was not made for is refused by name: PyTorch would take one number for many."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from editors.core.errors import InputError
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Dense, LowRank, Neurons, Patch, Route

draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
WIDTH, INNER = 32, 64

MISFITS = {
    "no such module": (lambda m: LowRank("transformer.h.9.mlp", draw(WIDTH, 1), draw(INNER, 1)), "does not have"),
    "no module": (lambda m: LowRank("", draw(WIDTH, 1), draw(INNER, 1)), "is on a GPTJForCausalLM|is on a T5"),
    "a block": (lambda m: LowRank(m.block_path(1), draw(WIDTH, 1), draw(WIDTH, 1)), "neither a linear map nor an FFN"),
    "one output": (lambda m: LowRank(m.down_path(1), draw(1, 2), draw(INNER, 2)), r"a \[1, 2\].* be \[32, 2\]"),
    "one input": (lambda m: LowRank(m.down_path(1), draw(WIDTH, 2), draw(1, 2)), r"b \[1, 2\].* be \[64, 2\]"),
    "two ranks": (lambda m: LowRank(m.down_path(1), draw(WIDTH, 2), draw(INNER, 1)), r"b \[64, 1\].* be \[64, 2\]"),
    "vectors": (lambda m: LowRank(m.down_path(1), draw(WIDTH), draw(INNER)), r"a \[32\]"),
    "the other projection": (lambda m: Dense(m.up_path(1), draw(WIDTH, INNER)), r"weight \[32, 64\].* be \[64, 32\]"),
    "one row": (lambda m: Dense(m.down_path(1), draw(1, INNER)), r"weight \[1, 64\].* be \[32, 64\]"),
    "a bias of one": (lambda m: Dense(m.down_path(1), draw(WIDTH, INNER), draw(1)), r"bias \[1\].* be \[32\]"),
    "one value": (lambda m: Neurons(m.ffn_path(1), draw(2, WIDTH), draw(1, 2), "relu"),
                  r"values \[1, 2\].* be \[32, 2\]"),
    "a bias for all": (lambda m: Neurons(m.ffn_path(1), draw(2, WIDTH), draw(WIDTH, 2), "relu", draw(1)),
                       r"bias \[1\].* be \[2\]"),
    "a gate for all": (lambda m: Neurons(m.ffn_path(1), draw(2, WIDTH), draw(WIDTH, 2), "relu", gate=draw(1, WIDTH)),
                       r"gate \[1, 32\].* be \[2, 32\]"),
    "keys of the inner width": (lambda m: Neurons(m.ffn_path(1), draw(2, INNER), draw(WIDTH, 2), "relu"),
                                r"keys \[2, 64\].* be \[2, 32\]"),
    "other queries": (lambda m: Neurons(m.ffn_path(1), draw(2, WIDTH), draw(WIDTH, 2), "relu", queries=draw(1, 3)),
                      r"queries \[1, 3\].* be \[1, 32\]"),
    "no activation": (lambda m: Neurons(m.ffn_path(1), draw(2, WIDTH), draw(WIDTH, 2), "rellu"),
                      "unknown activation 'rellu'. Did you mean 'relu'"),
    "two dtypes": (lambda m: Dense(m.down_path(1), draw(WIDTH, INNER), draw(WIDTH).double()), "float64 beside others"),
    "whole numbers": (lambda m: Dense(m.down_path(1), torch.ones(WIDTH, INNER).long()), "int64, which should be"),
    "a route on a module": (lambda m: Route(module=m.ffn_path(1), side="s", memory=()), "is on no module")}


@pytest.mark.parametrize("rows", [None, [0, -1]])
@pytest.mark.parametrize("misfit", MISFITS)
def test_a_term_that_does_not_fit_exactly_is_refused(model, misfit, rows):
    model = copy.copy(model)
    model.sides = {"s": None}
    term, problem = MISFITS[misfit]
    patch = Patch((made := term(model),))
    with pytest.raises(InputError, match=problem) as refused, overlay(model, [patch] if rows else patch, rows):
        pass
    assert made.module in str(refused.value) or "activation" in problem
    with overlay(model, [patch, Patch()], [1, -1]):  # a patch that no row carries is none of its business
        pass


def test_a_row_that_names_no_patch_is_refused(tiny_gptj):
    for row in (2, -2):
        with pytest.raises(ValueError, match=f"row number {row} names none of 2 patches"), overlay(
                tiny_gptj, [Patch(), Patch()], [0, row]):
            pass


def test_rows_of_two_dtypes_are_each_computed_as_alone(tiny_gptj):
    """In one batch the half precision would have been promoted."""
    path, a, b = tiny_gptj.down_path(1), draw(WIDTH, 1), draw(INNER, 1)
    patches = [Patch((LowRank(path, a, b),)), Patch((LowRank(path, a.half(), b.half()),))]
    batch = tiny_gptj.collate([tiny_gptj.encode("Ann Lee lives in", "Rome")] * 2)
    with torch.no_grad():
        with overlay(tiny_gptj, patches, [0, 1]):
            together = tiny_gptj.states(batch)
        for row, patch in enumerate(patches):
            with overlay(tiny_gptj, patch):
                torch.testing.assert_close(together[row], tiny_gptj.states(batch)[row], atol=1e-6, rtol=1e-6)


def test_what_diverged_is_still_scored(tiny_gptj):
    """Its numbers are a result, which says so: they are not dropped."""
    patch = Patch((Dense(tiny_gptj.down_path(1), torch.full((WIDTH, INNER), torch.nan)),))
    batch = tiny_gptj.collate([tiny_gptj.encode("Ann Lee lives in", "Rome")])
    with torch.no_grad(), overlay(tiny_gptj, patch):
        assert not tiny_gptj.target_logits(batch).isfinite().any()
