"""Writes on from a prompt, token by token, for methods that ask the model what it would say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from editors.core.models.batches import Encoded
from editors.core.models.model import LanguageModel


@torch.no_grad()
def write(model: LanguageModel, prompts: Sequence[tuple[int, ...]], lengths: Sequence[int],
          choose: Callable[[Tensor], Tensor], end: int | None = None) -> list[tuple[int, ...]]:
    """The tokens that follow each prompt: `lengths[i]` of them, or up to and with the token `end`.

    `choose` picks the next tokens [rows] from logits [rows, vocabulary] in fp32. The prompts grow together, and those
    that are done leave the batch.
    """
    written: list[tuple[int, ...]] = [() for _ in prompts]
    while growing := [number for number, tokens in enumerate(written)
                      if len(tokens) < lengths[number] and end not in tokens]:
        # The 0 stands for the token that is asked for; it is not read.
        batch = model.collate([Encoded(prompts[number], (*written[number], 0)) for number in growing])
        last = torch.tensor([len(written[number]) + 1 for number in growing], device=model.device).cumsum(0) - 1
        asked = replace(batch, row=batch.row[last], position=batch.position[last], target=batch.target[last])
        for number, token in zip(growing, choose(model.own_target_logits(asked)).tolist(), strict=True):
            written[number] += (token,)
    return written
