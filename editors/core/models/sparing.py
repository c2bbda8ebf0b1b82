"""Spares FFNs positions: the last one those that nobody reads, as only attention mixes positions and none comes after;
and one at whose other positions nothing has changed all but the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from editors.core.models.batches import Batch
from editors.core.models.model import LanguageModel
from editors.core.models.work import DONE


@dataclass(frozen=True)
class Places:
    """Where targets are predicted, as a rectangle: `taken` [rows, most] are positions, and `put` [rows, most] where
    what is made of them goes: there, or, where a row has fewer, behind the row's end."""

    taken: Tensor
    put: Tensor
    length: int

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
        return Places(put.clamp(max=length - 1), put, length)


@contextmanager
def only_targets(model: LanguageModel, places: Places | None) -> Iterator[None]:
    """Inside, the last block's FFN computes a batch's `places` alone, all without any; final states elsewhere mean
    nothing. Patches on that FFN have to be put on outside. A decoder behind an encoder reads little else than targets,
    and is left alone."""
    if model.has_encoder or places is None or places.put.shape[1] >= places.length:
        yield
        return

    def widen(output: Tensor) -> Tensor:
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
                   lambda output: torch.cat([output, known[:, 1:]], 1)):
        yield


@contextmanager
def _narrowed(model: LanguageModel, layer: int, narrow: Callable[[Tensor], Tensor],
              widen: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, the FFN of block `layer` is given what `narrow` makes of states [rows, length, width], and `widen` makes
    what it gives as long again."""
    ffn = model.submodule(model.ffn_path(layer))
    size = sum(math.prod(model.weights.shape(weight)) for weight in ffn.parameters())

    def before(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return narrow(args[0]), *args[1:]

    def after(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        wide = widen(output)
        spared = wide.shape[0] * (wide.shape[1] - output.shape[1])
        DONE.add(-spared, size, backward=output.requires_grad)
        return wide

    handles = ffn.register_forward_pre_hook(before), ffn.register_forward_hook(after)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _each(places: Tensor, states: Tensor) -> Tensor:
    """Places [rows, most] as an index of states [rows, length, width]."""
    return places[..., None].expand(-1, -1, states.shape[2])
