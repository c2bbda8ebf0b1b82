"""Runs a frozen model as if it were edited: `overlay` adds patches to module outputs, row by row, without a trace."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from editors.core.models.kept import Passed
from editors.core.models.model import LanguageModel
from editors.core.patches.fitting import refuse_misfits
from editors.core.patches.patch import Patch, Term
from editors.core.patches.route import routing
from editors.core.patches.runs import NONE, Runs

UNPATCHED = NONE


@contextmanager
def overlay(model: LanguageModel, patches: Patch | Sequence[Patch],
            rows: Sequence[int] | None = None) -> Iterator[None]:
    """Inside, row i of every batch is answered by the model with `patches[rows[i]]` on it.

    `rows` gives one patch number per batch row, or -1 for a row that stays unedited. A single `Patch` (and no rows)
    covers every row, whatever the batch. No weight is written, hooks are removed whatever happens inside, and
    overlays nest: the inner one comes on top. Raises `InputError`, naming the module, for a term that does not fit it
    exactly, and `ValueError` where rows and batch differ in length, or a row names no patch.
    """
    if isinstance(patches, Patch):
        patches, rows = [patches], None
    elif rows is None:
        raise ValueError("several patches need `rows`: the patch number of every batch row")
    elif odd := set(rows).difference(range(UNPATCHED, len(patches))):
        raise ValueError(f"row number {min(odd)} names none of {len(patches)} patches")
    used = range(len(patches)) if rows is None else sorted(set(rows) - {UNPATCHED})
    refuse_misfits(model, (patches[number] for number in used))
    with ExitStack() as stack:
        stack.enter_context(routing(model, patches, rows))
        for path, hook in _hooks(patches, rows, used).items():
            stack.callback(model.submodule(path).register_forward_hook(hook).remove)
        if rows is None:
            stack.callback(setattr, model, "patches", model.patches)
            model.patches += tuple(patches)
        yield


def leaving(model: LanguageModel, passed: Passed, patches: Sequence[Patch], rows: Sequence[int]) -> Tensor:
    """What leaves a block that was `passed`, row i with `patches[rows[i]]` on it: as in an `overlay`, without running
    the block, where no patch has other terms on it or below."""
    terms = [(number, term) for number in sorted(set(rows) - {UNPATCHED}) for term in patches[number].terms
             if term.module == passed.path]
    block = model.block_of(passed.path)
    assert block is not None
    if not terms:
        return passed.hidden
    more = _added([(list(group.values()), _runs(group, rows)) for group in _groups(terms)], passed.read)
    written = None if passed.written is None else passed.written.float()
    return model.with_more(block.layer, passed.hidden.float(), written, more).to(passed.hidden.dtype)


def _hooks(patches: Sequence[Patch], rows: Sequence[int] | None,
           used: Sequence[int]) -> dict[str, Callable[..., Tensor]]:
    """One hook per module that the patches `used` touch."""
    terms: dict[str, list[tuple[int, Term]]] = defaultdict(list)
    for number in used:
        for term in patches[number].terms:
            if term.module:
                terms[term.module].append((number, term))
    return {path: _make_hook(path, found, rows) for path, found in terms.items()}


def _make_hook(path: str, terms: Sequence[tuple[int, Term]], rows: Sequence[int] | None) -> Callable[..., Tensor]:
    groups = [(list(group.values()), None if rows is None else _runs(group, rows)) for group in _groups(terms)]

    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        if rows is not None and len(rows) != x.shape[0]:
            raise ValueError(f"overlay has {len(rows)} rows, but {path} got a batch of {x.shape[0]}")
        return (output + _added(groups, x)).to(output.dtype)

    return hook


def _added(groups: Sequence[tuple[Sequence[Term], Runs | None]], x: Tensor) -> Tensor:
    """Σ_p Δ_p(x), over the patches p of each row"""
    parts = (group[0].delta(x) if runs is None else type(group[0]).delta_by_row(group, runs, x)
             for group, runs in groups)
    return functools.reduce(torch.add, parts)


def _groups(terms: Sequence[tuple[int, Term]]) -> list[dict[int, Term]]:
    """Splits terms into groups of one class and form that hold at most one term of each patch: rows are computed as
    they would be alone."""
    groups: list[tuple[object, dict[int, Term]]] = []
    for number, term in terms:
        own = type(term), term.form
        for kind, group in groups:
            if kind == own and number not in group:
                group[number] = term
                break
        else:
            groups.append((own, {number: term}))
    return [group for _, group in groups]


def _runs(group: dict[int, Term], rows: Sequence[int]) -> Runs:
    place = {number: position for position, number in enumerate(group)}
    return Runs([place.get(number, UNPATCHED) for number in rows])
