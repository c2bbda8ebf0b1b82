"""A training run on disk: weights, optimiser state and progress in one safetensors file, replaced atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def save_checkpoint(path: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer,
                    header: Mapping[str, str]) -> None:
    tensors = {f"weights.{name}": tensor for name, tensor in weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, partial, dict(header))
    partial.replace(path)


def read_header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def load_checkpoint(path: Path, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Restores the optimiser, which must have the same parameters, and returns the weights."""
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            kind, rest = name.split(".", 1)
            if kind == "weights":
                weights[rest] = file.get_tensor(name)
            else:
                index, key = rest.split(".", 1)
                state.setdefault(int(index), {})[key] = file.get_tensor(name)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return weights
