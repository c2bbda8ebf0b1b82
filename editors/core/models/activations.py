"""Activation functions by name, and the library's modules of them that keep least for a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from editors.core.errors import unknown
from editors.core.models.layouts import COMPOSED

TANH_GELU = "gelu_pytorch_tanh"  # x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), in one operation


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """An activation function by its name in `transformers.activations.ACT2FN`. Raises `InputError` for others."""
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        raise unknown("activation", name, ACT2FN)
    function: Callable[[Tensor], Tensor] = ACT2FN[TANH_GELU if name in COMPOSED else name]
    return function


def fuse(module: nn.Module, name: str) -> None:
    """Gives a model whose activation function has this name the one that keeps least for a gradient."""
    if name not in COMPOSED:
        return
    from transformers.activations import ACT2FN

    kind: Any = type(ACT2FN[name])
    for parent in module.modules():
        for place, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, place, activation_function(name))
