"""Text as a model reads it: token ids, padded batches, and the places where target tokens are predicted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from editors.core.models.layouts import Stack

Padding = Literal["right", "left"]


class BlockRef(NamedTuple):
    """A block, and so the hidden states that enter it. A decoder-only model has only the stack "decoder"."""

    stack: Stack
    layer: int


@dataclass(frozen=True)
class Encoded:
    """A prompt and the target that should follow it, as token ids."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]

    def __len__(self) -> int:
        """Tokens the model has to read; the last target token is only predicted."""
        return len(self.prompt) + max(len(self.target) - 1, 0)


def by_length(sizes: Sequence[int], budget: int, waste: float = math.inf) -> Iterator[list[int]]:
    """Numbers of items in groups of similar size, small ones first: the largest size of a group times its length is
    within the budget, unless it holds a single item, and no item makes those before it longer by more than `waste` in
    all."""
    group: list[int] = []
    for number in sorted(range(len(sizes)), key=sizes.__getitem__):
        if group and (sizes[number] * (len(group) + 1) > budget
                      or (sizes[number] - sizes[group[-1]]) * len(group) > waste):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def alike(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Numbers of items in groups of `most`, small ones first; the last group may be short."""
    numbers = sorted(range(len(sizes)), key=sizes.__getitem__)
    return [numbers[start: start + most] for start in range(0, len(numbers), most)]


@dataclass(frozen=True)
class EncoderInput:
    """What an encoder reads, both [rows, length], and once it has read it, its states [rows, length, width]."""

    input_ids: Tensor
    attention_mask: Tensor
    states: Tensor | None = None

    def select(self, rows: Tensor) -> EncoderInput:
        return EncoderInput(self.input_ids[rows], self.attention_mask[rows],
                      None if self.states is None else self.states[rows])


@dataclass(frozen=True)
class Batch:
    """Padded model inputs, each [rows, length], and the flat list of places where target tokens are predicted.

    `row[k]`, `position[k]` and `target[k]` say that the logits of row `row[k]` at `position[k]` predict the token
    `target[k]`. In a `suffix` the attention mask also covers the cached tokens before it; one that says for each token
    which it sees is what the library adds to attention's scores [rows, 1, length, cached + length]. With an encoder,
    `source` holds the prompts, and everything else speaks of the decoder, which reads the targets shifted right.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    row: Tensor
    position: Tensor
    target: Tensor
    source: EncoderInput | None = None

    @property
    def first_position(self) -> Tensor:
        """Where each row's first target token is predicted [rows]: the prompt's last position."""
        return self.row.new_zeros(len(self.input_ids)).scatter_reduce(0, self.row, self.position, "amin",
                                                                      include_self=False)

    def select(self, rows: Tensor) -> Batch:
        """The batch of these rows alone, padded as before."""
        place = torch.full((len(self.input_ids),), -1, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        kept = place[self.row] >= 0
        return Batch(self.input_ids[rows], self.attention_mask[rows], self.position_ids[rows],
                     place[self.row][kept], self.position[kept], self.target[kept],
                     self.source.select(rows) if self.source else None)

    def trimmed(self) -> Batch:
        """The batch without columns that are padding in every row (right padding only)."""
        length = int(self.attention_mask.sum(1).max())
        return replace(self, input_ids=self.input_ids[:, :length], attention_mask=self.attention_mask[:, :length],
                       position_ids=self.position_ids[:, :length])

    def suffix(self, start: Tensor) -> tuple[Batch, Tensor]:
        """Each row from position `start[row]` on (right padding only), behind `max(start)` cached positions.

        Also returns the positions taken [rows, suffix length], to gather states of the whole batch with.
        """
        lengths = self.attention_mask.sum(1)
        steps = torch.arange(int((lengths - start).max()), device=start.device)
        taken = (start[:, None] + steps).clamp(max=self.input_ids.shape[1] - 1)
        cached = torch.arange(int(start.max()), device=start.device)[None] < start[:, None]
        real = steps[None] < (lengths - start)[:, None]
        return Batch(self.input_ids.gather(1, taken), torch.cat([cached, real], 1).to(self.attention_mask.dtype),
                     self.position_ids.gather(1, taken), self.row, self.position - start[self.row],
                     self.target), taken
