"""Activation functions by name, and of the commonest one that keeps least for a gradient, and takes least on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from editors.core.errors import unknown
from editors.core.models.layouts import TANH_GELU

TWICE = 2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715


class TanhGelu(nn.Module):
    """x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), which keeps its input alone for a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype.itemsize < 4:  # rounding between the steps would show
            return nn.functional.gelu(x, approximate="tanh")
        wanted = x.requires_grad and torch.is_grad_enabled()
        activated: Tensor = _Kept.apply(x) if wanted else _gelu(x)  # type: ignore[no-untyped-call]
        return activated


def _gelu(x: Tensor) -> Tensor:
    """With 1 + tanh(y) = 2 sigmoid(2 y): the library's takes twice as long on a CPU, for its tanh."""
    # x sigmoid(2 √(2/π) (x + 0.044715 x³))
    return torch.addcmul(x.new_tensor(TWICE), x, x, value=TWICE * CUBIC).mul_(x).sigmoid_().mul_(x)


class _Kept(torch.autograd.Function):
    """`_gelu` with the library's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _gelu(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient: Tensor = torch.ops.aten.gelu_backward(grads[0], x, approximate="tanh")
        return gradient


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """An activation function by its name in `transformers.activations.ACT2FN`. Raises `InputError` for others."""
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        raise unknown("activation", name, ACT2FN)
    function: Callable[[Tensor], Tensor] = TanhGelu() if name in TANH_GELU else ACT2FN[name]
    return function


def fuse(module: nn.Module, name: str) -> None:
    """Gives a model whose activation function has this name the one that takes and keeps least."""
    if name not in TANH_GELU:
        return
    from transformers.activations import ACT2FN

    kind: Any = type(ACT2FN[name])
    for parent in module.modules():
        for place, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, place, activation_function(name))
