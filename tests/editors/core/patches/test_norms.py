"""The norm of a patch against the changed weights themselves."""

import math

import pytest
import torch

from editors.core.patches.norms import patch_norm
from editors.core.patches.patch import Dense, LowRank, Neurons, Patch, Route


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_it_is_that_of_all_changes_together():
    """Two terms of one weight add up before they are measured, also such as cannot be merged."""
    low = [LowRank("m", drawn(7, 2, seed=seed), drawn(5, 2, seed=seed + 9)) for seed in (1, 2)]
    dense = Dense("m", drawn(7, 5, seed=3), drawn(7, seed=4))
    other = Dense("n", drawn(300, 40, seed=5))
    changes = {"m": sum(term.a.double() @ term.b.double().T for term in low), "n": other.weight.double()}
    neurons = Neurons("m", drawn(3, 5), drawn(7, 3), "relu")
    found = patch_norm(Patch((low[0], neurons, other, low[1])))
    assert found == pytest.approx(math.sqrt(sum(float((change ** 2).sum()) for change in changes.values())), rel=1e-6)
    changes["m"] = changes["m"] + dense.weight.double()
    found = patch_norm(Patch((*low, dense, other)))
    assert found == pytest.approx(math.sqrt(sum(float((change ** 2).sum()) for change in changes.values())), rel=1e-6)


def test_half_precision_is_summed_in_single():
    weight = torch.full((4, 4096), 60.0, dtype=torch.float16)  # squares of which no sum fits float16
    assert patch_norm(Patch((Dense("m", weight),))) == pytest.approx(60 * 128, rel=1e-6)


def test_no_change_of_a_weight_has_none():
    assert patch_norm(Patch()) is None
    assert patch_norm(Patch((Neurons("m", drawn(3, 5), drawn(7, 3), "relu"),))) is None
    assert patch_norm(Patch((Route(side="s", memory=(("p", "t"),)),))) is None


@pytest.mark.parametrize("wrong", [math.inf, math.nan])
def test_what_is_not_finite_is_infinite(wrong):
    assert patch_norm(Patch((Dense("m", torch.tensor([[1.0, wrong]])), Dense("n", torch.ones(1, 1))))) == math.inf
