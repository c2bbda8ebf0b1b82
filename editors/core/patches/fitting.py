"""Whether patches are for a model: every term on a module that it has, with tensors of just that module's shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from editors.core.errors import InputError
from editors.core.models.activations import activation_function
from editors.core.models.linear import is_linear
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Neurons, Patch, Route, Term


def refuse_misfits(model: LanguageModel, patches: Iterable[Patch]) -> None:
    """Raises `InputError` for a patch that was made for another model, and, naming the module, where a term cannot be
    computed on this model exactly as it says.

    Whether numbers are finite is not asked: an edit that diverged is scored like any other.
    """
    known: dict[str, Mapping[str, int]] = {}
    for patch in patches:
        if patch.origin is not None:
            patch.origin.check(model.name, model.digest)
        for term in patch.terms:
            if problem := _misfit(model, term, known):
                place = f" on '{term.module}'" if term.module else ""
                raise InputError(f"the patch does not fit model '{model.name}': its term of kind '{term.kind}'{place} "
                                 f"{problem}. Take a patch that was made for this model")


def _misfit(model: LanguageModel, term: Term, known: dict[str, Mapping[str, int]]) -> str | None:
    if isinstance(term, Route):
        return "routes questions to another model, and so is on no module" if term.module else None
    if term.module not in known:
        try:
            module = model.submodule(term.module)
        except AttributeError:
            return "is on a module that the model does not have"
        sides = _sides(model, term.module, module)
        if sides is None:
            return f"is on a {type(module).__name__}, which is neither a linear map nor an FFN"
        known[term.module] = sides
    if isinstance(term, Neurons):
        activation_function(term.activation)  # raises where there is none
    return term.misfit(known[term.module])


def _sides(model: LanguageModel, path: str, module: nn.Module) -> Mapping[str, int] | None:
    """The widths of what a module reads and gives."""
    if is_linear(module):
        out, width = model.matrix(path)
        return {"in": width, "out": out}
    ffns = (model.ffn_path(layer, stack) for stack in model.architecture.layouts
            for layer in range(model.depth_of(stack)))
    return {"in": model.width, "out": model.width} if path in ffns else None
