"""OPT's blocks with an FFN of their own: the library's keep its two projections beside all else, and have them read the
tokens of a batch as one long row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from transformers.models.opt.modeling_opt import OPTDecoderLayer


class FFN(nn.Module):
    """Two projections of a block, and the activation function between them. The projections stay the block's: weights
    keep their names."""

    fc1: nn.Module
    fc2: nn.Module
    activation_fn: nn.Module

    def __init__(self, block: OPTDecoderLayer) -> None:
        super().__init__()
        vars(self).update(fc1=block.fc1, fc2=block.fc2, activation_fn=block.activation_fn)

    def forward(self, x: Tensor) -> Tensor:
        written: Tensor = self.fc2(self.activation_fn(self.fc1(x)))
        return written


class Block(OPTDecoderLayer):
    """A block with its norms before attention and FFN, in evaluation."""

    ffn: nn.Module

    def forward(self, hidden_states: Tensor, *args: Any, **settings: Any) -> Tensor:
        attended = self.self_attn(self.self_attn_layer_norm(hidden_states), *args, **settings)[0]
        hidden_states = hidden_states + attended
        written: Tensor = hidden_states + self.ffn(self.final_layer_norm(hidden_states))
        return written


def give_ffns(blocks: Iterable[OPTDecoderLayer]) -> None:
    """Turns the library's blocks into `Block`s, in place."""
    for block in blocks:
        if not isinstance(block, Block):
            block.__class__ = Block
            block.ffn = FFN(block)
