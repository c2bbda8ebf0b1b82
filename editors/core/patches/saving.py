"""Writes an edited model as a folder of its own, the patch in its weights: what answers as `overlay` does, and needs no
EditFleet to be loaded."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from editors.core.errors import InputError
from editors.core.files import atomic_folder
from editors.core.models.hugging_face import quiet, save_folder
from editors.core.models.linear import as_kept, is_linear
from editors.core.models.model import LanguageModel
from editors.core.models.parts import shallow
from editors.core.patches.fitting import refuse_misfits
from editors.core.patches.patch import Dense, LowRank, Neurons, Patch, Route, Term

SHARD = "5GB"  # what hubs and file systems take without trouble


def save_edited(model: LanguageModel, patch: Patch, folder: Path | str, *, card: str = "", shard: str = SHARD) -> None:
    """Writes configuration, tokenizer and weights with the patch in them, in the weights' precision, as transformers
    reads them; files of weights are as large as `shard` at most. `card` is the text of the folder's README.md.

    The folder appears whole or not at all, and the model itself is not changed. Raises `InputError`, before anything
    is written, for a folder that is not empty, and for a patch of another model, or that is no change of weights.
    """
    weights = edited_weights(model, patch)
    module: Any = shallow(model.module)
    module.config = copy.deepcopy(module.config)  # in which saving notes the precision
    with atomic_folder(folder) as partial, quiet():
        save_folder(partial, module, model.tokenizer, max_shard_size=shard,
                    state_dict={**model.module.state_dict(), **weights})
        if card:
            (partial / "README.md").write_text(card, encoding="utf-8")


def edited_weights(model: LanguageModel, patch: Patch) -> dict[str, Tensor]:
    """The weights that a patch changes, by name, as they are with it. Raises like `save_edited`."""
    return {name: edited(model, name, model.module.get_parameter(name).detach(), terms)
            for name, terms in changes(model, patch).items()}


def changes(model: LanguageModel, patch: Patch) -> dict[str, list[Term]]:
    """Which weights a patch changes, by name, and by which of its terms. The model's own are not read: they may be on
    the meta device. Raises like `save_edited`."""
    for term in patch.terms:
        _refuse_other_kinds(model, term)
    refuse_misfits(model, [patch])
    found: dict[str, list[Term]] = defaultdict(list)
    for term in patch.terms:
        linear = _linear(model, term)
        for part in ("weight", "bias") if isinstance(term, Dense) and term.bias is not None else ("weight",):
            if getattr(linear, part) is None:
                raise _refusal(model, term, f"adds a {part}, and the module has none")
            found[f"{term.module}.{part}"].append(term)
    return found


def edited(model: LanguageModel, name: str, weight: Tensor, terms: Sequence[Term],
           dtype: torch.dtype | None = None) -> Tensor:
    """W + Σ ΔW of a weight of `changes`, summed in fp32 (or fp64) and rounded once to `dtype`, or W's precision. Raises
    like `save_edited`."""
    total = weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)
    path, _, part = name.rpartition(".")
    seen = as_kept(model.submodule(path), total) if part == "weight" else total  # a view, as terms see weights
    for term in terms:
        add(term, part, seen)
    rounded = total.to(dtype or weight.dtype)
    if not all(each.isfinite() for each in rounded.aminmax()):  # which takes no memory, unlike `isfinite` of all
        raise _refusal(model, terms[-1], f"makes numbers that are not finite in {rounded.dtype}".replace("torch.", ""))
    return rounded


def add(term: Term, part: str, total: Tensor) -> None:
    """Adds to `total` what a term adds to its module's `weight` or `bias`; of low rank without a matrix of its size."""
    match term, part:
        case LowRank(), "weight":
            total.addmm_(term.a.to(total), term.b.to(total).T)
        case Dense(), "weight":
            total.add_(term.weight.to(total))
        case Dense(bias=Tensor() as bias), "bias":
            total.add_(bias.to(total))
        case _:
            raise TypeError(f"a term of kind '{term.kind}' adds to no {part}")


def _refuse_other_kinds(model: LanguageModel, term: Term) -> None:
    match term:
        case LowRank() | Dense():
            return
        case Neurons():
            raise _refusal(model, term, "adds neurons to an FFN, as T-Patcher and CaliNET do, which its matrices have "
                                        "no room for")
        case Route():
            raise _refusal(model, term, "routes questions to a second model, as SERAC does")
    raise _refusal(model, term, "is no change of a weight")


def _linear(model: LanguageModel, term: Term) -> nn.Module:
    """The module that a term is on. Raises `InputError` where it is not one whose weight the term can be added to."""
    module = model.submodule(term.module)
    if not is_linear(module):
        raise _refusal(model, term, f"is on a {type(module).__name__}, which is no linear map with a weight")
    sharing = [name for name, weight in model.module.named_parameters(remove_duplicate=False)
               if weight is module.weight and name != f"{term.module}.weight"]
    if sharing:
        raise _refusal(model, term, f"is on a weight that is that of '{sharing[0].removesuffix('.weight')}' too, which "
                                    "the patch leaves alone")
    return module


def _refusal(model: LanguageModel, term: Term, problem: str) -> InputError:
    place = f" on '{term.module}'" if term.module else ""
    return InputError(f"the patch cannot be written into the weights of '{model.name}': its term of kind '{term.kind}'"
                      f"{place} {problem}. Patches of ft, ke, kn, memit, mend and rome can be; any other keeps to "
                      "`Patch.save` and `overlay`")
