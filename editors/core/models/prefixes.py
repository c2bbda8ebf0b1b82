"""Reads rows of a batch no further than is asked: what they begin with in common is run once, and behind some block
only the first tokens of each."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from editors.core.models.batches import Batch
from editors.core.models.model import KeysValues, LanguageModel
from editors.core.models.sparing import Places, only_real, only_targets


class Read(NamedTuple):
    """A batch that was read: every block's keys and values, the `columns` [rows, length] of these that belong to a
    row's tokens, and the `final` states [asked, width]. Hooks saw of row i a `length` of tokens from `start[i]` on."""

    final: Tensor
    cache: KeysValues
    columns: Tensor
    start: Tensor
    length: int

    def at(self, places: Tensor) -> Tensor:
        """Positions [rows, most] of tokens, from `start` on, in all that hooks saw of the last pass."""
        return (places - self.start[:, None]).clamp(max=self.length - 1)

    def keys_values(self, layer: int, most: int) -> tuple[Tensor, Tensor]:
        """A block's keys and values [rows, heads, most, size] of each row's first tokens."""
        keys, values = self.cache[layer]
        return self._of(keys, most), self._of(values, most)

    def _of(self, cached: Tensor, most: int) -> Tensor:
        columns = self.columns[:, None, :most, None].expand(-1, cached.shape[1], -1, cached.shape[3])
        return cached.gather(2, columns.clamp(max=cached.shape[2] - 1))


def read(model: LanguageModel, batch: Batch, start: Tensor, period: int, stop: int, needed: Tensor,
         asked: Tensor) -> Read:
    """Reads a batch, padded on the right, of which row i begins with the same `start[i]` tokens as row i % period. From
    block `stop` on it reads the first `needed[i]` tokens of a row alone; final states are those at the last of these in
    the rows `asked`. Hooks may be on the two blocks below, of which all is as it would be of the whole batch."""
    token, most = torch.arange(batch.input_ids.shape[1], device=start.device)[None], int(start.max())
    past = _common(model, batch, start, period, most) if most else []
    rest, _ = batch.suffix(start)
    with only_real(model, Places.of(rest), stop=stop - 2):
        hidden, cache = model.run_with_cache(None, rest, 0, stop, past)
    length, last = hidden.shape[1], (needed - start)[asked] - 1
    if stop < model.depth:
        upto = max(int((needed - start).max()), 1)
        head = Batch(rest.input_ids[:, :upto], rest.attention_mask[:, : most + upto], rest.position_ids[:, :upto],
                     asked, last, asked)
        places = Places.of(head)
        with only_targets(model, places), only_real(model, places, start=stop):
            hidden, above = model.run_with_cache(hidden[:, :upto], head, stop, model.depth, past)
        cache = cache[:stop] + above[stop:]
    # What is common comes first, as long as the longest; then the rest.
    columns = torch.where(token < start[:, None], token, token - start[:, None] + most)
    return Read(hidden[asked, last], cache, columns, start, length)


def _common(model: LanguageModel, batch: Batch, start: Tensor, period: int, most: int) -> KeysValues:
    """Keys and values of what rows begin with in common, for each row."""
    none, common = batch.row[:0], (slice(period), slice(most))
    _, past = model.states_and_cache(Batch(batch.input_ids[common], batch.attention_mask[common],
                                           batch.position_ids[common], none, none, none))
    alike = torch.arange(len(start), device=start.device) % period
    return [(keys[alike], values[alike]) for keys, values in past]
