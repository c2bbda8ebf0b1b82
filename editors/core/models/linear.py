"""Linear maps, whichever way the library keeps their weights; editors and patches know [outputs, inputs] alone."""

from __future__ import annotations

from torch import Tensor, nn


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map with a weight."""
    return isinstance(module, nn.Linear) or is_turned(module)


def is_turned(module: nn.Module) -> bool:
    """Whether it keeps its weight as [inputs, outputs], as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def as_kept(module: nn.Module, change: Tensor) -> Tensor:
    """A change [outputs, inputs] of a linear map's weight, the way round that the weight is kept."""
    return change.T if is_turned(module) else change
