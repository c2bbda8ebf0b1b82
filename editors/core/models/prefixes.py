"""Runs once what rows of a batch begin with in common."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from editors.core.models.batches import Batch
from editors.core.models.model import KeysValues, LanguageModel


class Read(NamedTuple):
    """A batch that was read: final `states` [rows, longest rest, width], of each row from `start` [rows] on; every
    block's keys and values; and the `columns` [rows, length] of these that belong to a row's tokens."""

    states: Tensor
    cache: KeysValues
    start: Tensor
    columns: Tensor

    def at(self, places: Tensor) -> Tensor:
        """Positions [rows, most] of tokens, from `start` on, in states, and in all that hooks saw of the last pass."""
        return (places - self.start[:, None]).clamp(max=self.states.shape[1] - 1)

    def keys_values(self, layer: int, most: int) -> tuple[Tensor, Tensor]:
        """A block's keys and values [rows, heads, most, size] of each row's first tokens."""
        keys, values = self.cache[layer]
        return self._of(keys, most), self._of(values, most)

    def _of(self, cached: Tensor, most: int) -> Tensor:
        columns = self.columns[:, None, :most, None].expand(-1, cached.shape[1], -1, cached.shape[3])
        return cached.gather(2, columns)


def read(model: LanguageModel, batch: Batch, start: Tensor, period: int) -> Read:
    """Reads a batch, padded on the right, of which row i begins with the same `start[i]` tokens as row i % period."""
    token, most = torch.arange(batch.input_ids.shape[1], device=start.device)[None], int(start.max())
    if not most:
        states, cache = model.states_and_cache(batch)
        return Read(states, cache, start, token.expand(len(start), -1))
    none, common = batch.row[:0], (slice(period), slice(most))
    past = model.states_and_cache(Batch(batch.input_ids[common], batch.attention_mask[common],
                                        batch.position_ids[common], none, none, none))[1]
    alike = torch.arange(len(start), device=start.device) % period
    rest, _ = batch.suffix(start)
    states, cache = model.states_and_cache(rest, [(keys[alike], values[alike]) for keys, values in past])
    # What is common comes first, as long as the longest; then the rest.
    columns = torch.where(token < start[:, None], token, token - start[:, None] + most)
    return Read(states, cache, start, columns.clamp(max=most + states.shape[1] - 1))
