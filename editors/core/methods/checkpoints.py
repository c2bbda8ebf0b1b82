"""A training run on disk: weights, optimiser state and progress in one safetensors file, replaced atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editors.core.files import read_header, read_tensors, write_tensors

KIND = "checkpoint"


def save_checkpoint(path: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer,
                    header: Mapping[str, Any]) -> None:
    tensors = {f"weights.{name}": tensor for name, tensor in weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    write_tensors(path, KIND, header, tensors)


def read_progress(path: Path) -> dict[str, Any]:
    """The header a checkpoint was saved with."""
    return read_header(path, KIND)


def load_checkpoint(path: Path, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Restores the optimiser, which must have the same parameters, and returns the weights."""
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(path, KIND)[1].items():
        kind, rest = name.split(".", 1)
        if kind == "weights":
            weights[rest] = tensor
        else:
            index, key = rest.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return weights
