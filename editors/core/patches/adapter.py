"""Writes a patch as a LoRA adapter (Hu et al. 2021), which PEFT loads onto the unedited model: small matrices, beside
weights that stay as they are."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from editors.core.errors import InputError
from editors.core.files import atomic_folder, save_tensors
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Dense, LowRank, Patch, Term
from editors.core.patches.saving import changes

RANK = 64  # of what a dense change is brought down to, unless another is asked for


class _Factors(NamedTuple):
    """ΔW ≈ a bᵀ of one module, with a [out, rank] and b [in, rank], what is added to its bias, and ‖ΔW - a bᵀ‖/‖ΔW‖ of
    the dense part, where there is one."""

    a: Tensor
    b: Tensor
    bias: Tensor | None
    error: float | None


def save_adapter(model: LanguageModel, patch: Patch, folder: Path | str, *, rank: int = RANK, base: str | None = None,
                 card: str = "") -> dict[str, float]:
    """Writes `adapter_config.json` and `adapter_model.safetensors`, and `card` as README.md. No weight of the model is
    read. `base` is where PEFT finds the unedited model, by default its name.

    Terms of low rank are kept exactly. Dense ones are cut to `rank` by singular values: returned is what was lost, as a
    share of the change's Frobenius norm, by module. The folder appears whole or not at all. Raises `InputError`, before
    anything is written, like `save_edited`, and for a patch that changes nothing.
    """
    grouped: dict[str, list[Term]] = defaultdict(list)
    for name, terms in changes(model, patch).items():
        if name.endswith(".weight"):
            grouped[name.removesuffix(".weight")] += terms
    if not grouped:
        raise InputError(f"the patch changes nothing, so that there is no adapter of '{model.name}' to write")
    found = {module: _factors(module, terms, rank) for module, terms in sorted(grouped.items())}
    with_bias = any(each.bias is not None for each in found.values())
    with atomic_folder(folder) as partial:
        save_tensors(_tensors(found, with_bias), partial / "adapter_model.safetensors", {"format": "pt"})
        config = _config(model, {module: each.a.shape[1] for module, each in found.items()}, with_bias, base)
        (partial / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if card:
            (partial / "README.md").write_text(card, encoding="utf-8")
    return {module: each.error for module, each in found.items() if each.error is not None}


def _factors(module: str, terms: Sequence[Term], rank: int) -> _Factors:
    low = [term for term in terms if isinstance(term, LowRank)]
    dense = [term for term in terms if isinstance(term, Dense)]
    a, b = [_plain(term.a) for term in low], [_plain(term.b) for term in low]
    bias, error = None, None
    if dense:
        whole = torch.stack([_plain(term.weight) for term in dense]).sum(0)
        # ΔW = U S Vᵀ, of which the largest singular values are kept
        left, values, right = torch.linalg.svd(whole, full_matrices=False)
        a, b = [*a, left[:, :rank] * values[:rank]], [*b, right[:rank].T]
        error = float(values[rank:].norm() / values.norm()) if bool(values.any()) else 0.0
        biases = [_plain(term.bias) for term in dense if term.bias is not None]
        bias = torch.stack(biases).sum(0) if biases else None
    found = _Factors(torch.cat(a, 1), torch.cat(b, 1), bias, error)
    if not (found.a.isfinite().all() and found.b.isfinite().all()):
        raise InputError(f"the patch has numbers on '{module}' that are not finite: the edit diverged, and there is "
                         "nothing that an adapter could do as it does")
    return found


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().float()


def _tensors(found: Mapping[str, _Factors], with_bias: bool) -> dict[str, Tensor]:
    """As PEFT names them: y += B (A x), and to B's bias what is added to the module's."""
    tensors = {}
    for module, each in found.items():
        place = f"base_model.model.{module}"
        tensors[f"{place}.lora_A.weight"] = each.b.T.contiguous()
        tensors[f"{place}.lora_B.weight"] = each.a.contiguous()
        if with_bias:
            tensors[f"{place}.lora_B.bias"] = torch.zeros(len(each.a)) if each.bias is None else each.bias
    return tensors


def _config(model: LanguageModel, ranks: Mapping[str, int], with_bias: bool, base: str | None) -> dict[str, Any]:
    """Each module has its own rank, and as much of `alpha`, so that nothing is scaled."""
    turned = not all(isinstance(model.submodule(module), nn.Linear) for module in ranks)  # GPT-2's Conv1D
    return {"peft_type": "LORA", "task_type": "SEQ_2_SEQ_LM" if model.has_encoder else "CAUSAL_LM",
            "base_model_name_or_path": base or model.name, "inference_mode": True, "bias": "none",
            "lora_bias": with_bias, "lora_dropout": 0.0, "fan_in_fan_out": turned, "init_lora_weights": True,
            "target_modules": list(ranks), "r": max(ranks.values()), "lora_alpha": max(ranks.values()),
            "rank_pattern": dict(ranks), "alpha_pattern": dict(ranks)}
