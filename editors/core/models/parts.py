"""Some blocks of a stack as a module of its own that shares every submodule, so that hooks on them work."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from editors.core.models.layouts import Layout

ENDLESS = 2**30  # tokens


def shallow(module: nn.Module) -> nn.Module:
    """A copy with the same submodules and hooks, whose table of submodules can be changed without harm."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def stretch(backbone: nn.Module, layout: Layout, start: int, stop: int, *, norm: bool, entered: bool) -> nn.Module:
    """A stack with only some of its blocks, with or without its last norm. `entered`: what it is given has gone through
    other blocks, or might have."""
    part = shallow(backbone)
    blocks = part._modules[layout.blocks]
    assert isinstance(blocks, nn.ModuleList)
    part._modules[layout.blocks] = blocks[start:stop]
    if not norm:
        part._modules[layout.norm] = nn.Identity()
    if entered and layout.positions:
        part._modules[layout.positions] = _Nothing()
    part.config = copy.copy(part.config)
    if kinds := getattr(part.config, "layer_types", None):  # of attention: backbones count their blocks anew
        vars(part.config).update(layer_types=kinds[start:stop])
    if getattr(part.config, "sliding_window", None):
        # No text is longer than the window (`max_length`), but a row's cached tokens may lie further from those behind
        # them in a batch than in their text.
        vars(part.config).update(sliding_window=ENDLESS)
    return part


class _Nothing(nn.Module):
    """Adds nothing to what enters the blocks."""

    def forward(self, *_args: object, **_settings: object) -> Tensor:
        return torch.zeros(())
