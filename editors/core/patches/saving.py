"""Writes an edited model as a folder of its own, the patch in its weights: what answers as `overlay` does, and needs no
EditFleet to be loaded."""

from __future__ import annotations

import copy
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from editors.core.errors import InputError
from editors.core.files import atomic_folder
from editors.core.models.hugging_face import quiet
from editors.core.models.linear import as_kept, is_linear
from editors.core.models.model import LanguageModel, shallow
from editors.core.patches.fitting import refuse_misfits
from editors.core.patches.patch import Dense, LowRank, Neurons, Patch, Route, Term

SHARD = "5GB"  # what hubs and file systems take without trouble


def save_edited(model: LanguageModel, patch: Patch, folder: Path | str, *, card: str = "", shard: str = SHARD) -> None:
    """Writes configuration, tokenizer and weights with the patch in them, in the weights' precision, as transformers
    reads them; files of weights are as large as `shard` at most. `card` is the text of the folder's README.md.

    The folder appears whole or not at all, and the model itself is not changed. Raises `InputError`, before anything
    is written, for a folder that is not empty, and for a patch that is no change of this model's weights.
    """
    weights = edited_weights(model, patch)
    module: Any = shallow(model.module)
    module.config = copy.deepcopy(module.config)  # in which saving notes the precision
    with atomic_folder(folder) as partial, quiet():
        module.save_pretrained(partial, state_dict={**model.module.state_dict(), **weights}, max_shard_size=shard)
        model.tokenizer.save_pretrained(partial)
        if card:
            (partial / "README.md").write_text(card, encoding="utf-8")


def edited_weights(model: LanguageModel, patch: Patch) -> dict[str, Tensor]:
    """The weights that a patch changes, by name, as they are with it. Raises like `save_edited`."""
    changes: dict[str, list[tuple[Term, Tensor]]] = defaultdict(list)
    for term in patch.terms:
        linear = _linear(model, term)
        for name, change in _changes(model, term).items():
            weight = getattr(linear, name)
            if weight is None:
                raise _refusal(model, term, f"adds a {name}, and the module has none")
            changes[f"{term.module}.{name}"].append((term, as_kept(linear, change) if name == "weight" else change))
    return {name: _changed(model, name, found) for name, found in changes.items()}


def _changes(model: LanguageModel, term: Term) -> dict[str, Tensor]:
    """What a term adds to which parameter of its module."""
    match term:
        case LowRank():
            return {"weight": _exact(term.a) @ _exact(term.b).T}
        case Dense(bias=None):
            return {"weight": term.weight}
        case Dense():
            assert term.bias is not None
            return {"weight": term.weight, "bias": term.bias}
    raise _refusal(model, term, "is no change of a weight")


def _linear(model: LanguageModel, term: Term) -> nn.Module:
    """The module that a term is on. Raises `InputError` where it is not one whose weight the term can be added to."""
    match term:
        case Neurons():
            raise _refusal(model, term, "adds neurons to an FFN, as T-Patcher and CaliNET do, which its matrices have "
                                        "no room for")
        case Route():
            raise _refusal(model, term, "routes questions to a second model, as SERAC does")
    refuse_misfits(model, [Patch((term,))])
    module = model.submodule(term.module)
    if not is_linear(module):
        raise _refusal(model, term, f"is on a {type(module).__name__}, which is no linear map with a weight")
    sharing = [name for name, weight in model.module.named_parameters(remove_duplicate=False)
               if weight is module.weight and name != f"{term.module}.weight"]
    if sharing:
        raise _refusal(model, term, f"is on a weight that is that of '{sharing[0].removesuffix('.weight')}' too, which "
                                    "the patch leaves alone")
    return module


def _changed(model: LanguageModel, name: str, changes: list[tuple[Term, Tensor]]) -> Tensor:
    """W + Σ ΔW, summed in fp32 (or fp64) and rounded once to W's precision."""
    weight = model.module.get_parameter(name).detach()
    total = _exact(weight)
    for _, change in changes:
        total = total + change.to(total)
    edited = total.to(weight.dtype)
    if not edited.isfinite().all():
        raise _refusal(model, changes[-1][0], f"makes numbers that are not finite in {weight.dtype}".replace(
            "torch.", ""))
    return edited


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _refusal(model: LanguageModel, term: Term, problem: str) -> InputError:
    place = f" on '{term.module}'" if term.module else ""
    return InputError(f"the patch cannot be written into the weights of '{model.name}': its term of kind '{term.kind}'"
                      f"{place} {problem}. Patches of ft, ke, kn, memit, mend and rome can be; any other keeps to "
                      "`Patch.save` and `overlay`")
