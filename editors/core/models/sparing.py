"""Spares FFNs positions: the last one those that nobody reads, as only attention mixes positions and none comes after;
one at whose other positions nothing has changed all but the first; and all of them padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from editors.core.models.batches import Batch, BlockRef
from editors.core.models.model import LanguageModel
from editors.core.models.work import DONE
from editors.core.patches.patch import Patch

WORTH = 0.95  # share of real tokens above which to gather them takes as long as the others


@dataclass(frozen=True)
class Places:
    """Where targets are predicted, as a rectangle: `taken` [rows, most] are positions, and `put` [rows, most] where
    what is made of them goes: there, or, where a row has fewer, behind the row's end. `real` [tokens] are where tokens
    are that are no padding, of all rows one behind the other, where it is worth it to leave out the others."""

    taken: Tensor
    put: Tensor
    length: int
    real: Tensor | None

    @staticmethod
    def of(batch: Batch) -> Places:
        """The places of a batch; of equal ones one."""
        rows, length = batch.input_ids.shape
        found = (batch.row * length + batch.position).unique()
        row, position = found // length, found % length
        counts = torch.bincount(row, minlength=rows)
        # the number of a place among those of its row
        number = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
        put = row.new_full((rows, int(counts.max()) if len(row) else 0), length)
        put[row, number] = position
        return Places(put.clamp(max=length - 1), put, length, _real_tokens(batch))


@contextmanager
def only_targets(model: LanguageModel, places: Places | None) -> Iterator[None]:
    """Inside, the last block's FFN computes a batch's `places` alone, all without any; final states elsewhere mean
    nothing. Patches on that FFN have to be put on outside. A decoder behind an encoder reads little else than targets,
    and is left alone."""
    if model.has_encoder or places is None or places.put.shape[1] >= places.length:
        yield
        return

    def widen(output: Tensor, _: Tensor) -> Tensor:
        wide = output.new_zeros(output.shape[0], places.length + 1, output.shape[2])
        return wide.scatter(1, _each(places.put, output), output)[:, :-1]

    with _narrowed(model, model.depth - 1, lambda states: states.gather(1, _each(places.taken, states)), widen):
        yield


@contextmanager
def only_first(model: LanguageModel, layer: int, known: Tensor | None) -> Iterator[None]:
    """Inside, the FFN of block `layer` computes each row's first position alone; at the others it gives what is `known`
    [rows, length, width], if it is. For rows of which nothing else has changed that the FFN reads."""
    if known is None:
        yield
        return
    with _narrowed(model, layer, lambda states: states[:, :1].contiguous(),  # of a view rows would be multiplied singly
                   lambda output, _: torch.cat([output, known[:, 1:]], 1)):
        yield


@contextmanager
def only_real(model: LanguageModel, places: Places | None, patches: Collection[Patch] = (), start: int = 0,
              stop: int | None = None) -> Iterator[None]:
    """Inside, the FFNs from block `start` up to `stop`, or to the last, compute a batch's real tokens alone, all
    without `places`; nobody reads what becomes of the others. Those of blocks that `patches` touch, which are put on
    row by row, compute all. A decoder behind an encoder is left alone."""
    if model.has_encoder or places is None or (real := places.real) is None:
        yield
        return

    def narrow(states: Tensor) -> Tensor:
        taken: Tensor = _Taken.apply(states.flatten(0, 1), real)  # type: ignore[no-untyped-call]
        return taken[None]

    def widen(output: Tensor, like: Tensor) -> Tensor:
        wide: Tensor = output.new_zeros(like.shape[0] * like.shape[1], output.shape[2])
        return wide.index_copy(0, real, output[0]).reshape(*like.shape[:2], -1)

    touched = {model.block_of(term.module) for patch in patches for term in patch.terms}
    with ExitStack() as stack:
        for layer in range(start, model.depth - 1 if stop is None else stop):
            if BlockRef("decoder", layer) not in touched:
                stack.enter_context(_narrowed(model, layer, narrow, widen))
        yield


@contextmanager
def _narrowed(model: LanguageModel, layer: int, narrow: Callable[[Tensor], Tensor],
              widen: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Inside, the FFN of block `layer` is given what `narrow` makes of states [rows, length, width], and `widen` makes
    what it gives as long again, given what was to enter."""
    ffn = model.submodule(model.ffn_path(layer))
    size = sum(math.prod(model.weights.shape(weight)) for weight in ffn.parameters())
    entered: list[Tensor] = []

    def before(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        entered.append(args[0])
        return narrow(args[0]), *args[1:]

    def after(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        wide = widen(output, entered.pop())
        DONE.narrow(output[..., 0].numel(), wide[..., 0].numel(), size, backward=output.requires_grad)
        return wide

    handles = ffn.register_forward_pre_hook(before), ffn.register_forward_hook(after)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _real_tokens(batch: Batch) -> Tensor | None:
    """`Places.real` of a batch."""
    mask = batch.attention_mask
    if mask.ndim > 2:
        return None
    found = mask[:, mask.shape[1] - batch.input_ids.shape[1]:].flatten().nonzero().flatten()
    return found if len(found) < WORTH * batch.input_ids.numel() else None


def _each(places: Tensor, states: Tensor) -> Tensor:
    """Places [rows, most] as an index of states [rows, length, width]."""
    return places[..., None].expand(-1, -1, states.shape[2])


class _Taken(torch.autograd.Function):
    """Some rows [taken, width] of states [rows, width], none twice."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.rows = len(states)
        return states.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        [places] = ctx.saved_tensors
        return slope.new_zeros(ctx.rows, slope.shape[1]).index_copy(0, places, slope), None
