"""The door to a frozen model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from editors.core.memory import free_bytes


class Weights:
    """How to look at the weights of a model that this process holds whole.

    Where several processes share a model, a weight's own `shape` and values are an empty placeholder's, so that
    everything that reads one asks here. Modules are called as ever.
    """

    def shape(self, weight: Tensor) -> tuple[int, ...]:
        return tuple(weight.shape)

    def free(self, device: torch.device) -> float:
        """Bytes of memory that can still be had on the model's device."""
        return free_bytes(device)

    @contextmanager
    def whole(self, *weights: Tensor) -> Iterator[None]:
        """Inside, these weights can be read. Not for use in a forward pass, nor therefore in a hook."""
        yield
