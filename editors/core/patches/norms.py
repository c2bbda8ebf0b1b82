"""How large the changes are that patches make of weights."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor

from editors.core.patches.patch import Dense, LowRank, Patch, Term


def term_norm(term: Term) -> float | None:
    """The Frobenius norm of what a term adds to a weight; None of one that changes none: more neurons, or another
    model's answers."""
    match term:
        case LowRank():
            # ‖a bᵀ‖² = tr((aᵀ a)(bᵀ b)), which takes no matrix of the weight's size
            a, b = term.a.double(), term.b.double()
            return float(((a.T @ a) * (b.T @ b)).sum().clamp(min=0).sqrt())
        case Dense():
            # By rows first: neither a copy in float64, nor sums in float32 over millions of weights.
            wide = torch.promote_types(term.weight.dtype, torch.float32)
            return float(torch.linalg.vector_norm(term.weight, dim=1, dtype=wide).double().norm())
    return None


def patch_norm(patch: Patch) -> float | None:
    """The Frobenius norm of all that a patch adds to weights; None where it changes none, infinite where it is not
    finite."""
    changed: dict[str, list[LowRank | Dense]] = defaultdict(list)
    for term in patch.compact().terms:
        if isinstance(term, LowRank | Dense):
            changed[term.module].append(term)
    # ‖ΔW‖² = Σ_module ‖Σ_term ΔW‖²
    norms = [term_norm(terms[0]) if len(terms) == 1 else
             float(torch.stack([_change(term) for term in terms]).sum(0).norm()) for terms in changed.values()]
    norm = math.hypot(*(each for each in norms if each is not None))
    return None if not norms else math.inf if math.isnan(norm) else norm


def _change(term: LowRank | Dense) -> Tensor:
    """What a term adds to a weight [out, in], in float64."""
    return term.a.double() @ term.b.double().T if isinstance(term, LowRank) else term.weight.double()
