"""A training run on disk: weights, optimiser state and progress in one safetensors file, replaced atomically."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from editors.core.files import read_header, read_tensors, write_tensors

KIND = "checkpoint"


class Checkpoint:
    """The file that a training run goes on from where it was cut short.

    `changed` is called after the file was written, and after it was removed: a store that keeps it elsewhere brings its
    copy up to date then, and no thread has to watch the file.
    """

    def __init__(self, path: Path, changed: Callable[[], None] | None = None) -> None:
        self.path, self._changed = path, changed

    def save(self, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, header: Mapping[str, Any]) -> None:
        """Writes the run's state; `header` is JSON."""
        tensors = {f"weights.{name}": tensor for name, tensor in weights.items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        write_tensors(self.path, KIND, header, tensors)
        self._tell()

    def header(self) -> dict[str, Any]:
        """What `save` was given as such. Raises `InputError` for a file that is missing, damaged or of another kind."""
        return read_header(self.path, KIND)

    def load(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Restores the optimiser, which must have the same parameters; returns the weights. Raises like `header`."""
        weights: dict[str, Tensor] = {}
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in read_tensors(self.path, KIND)[1].items():
            kind, rest = name.split(".", 1)
            if kind == "weights":
                weights[rest] = tensor
            else:
                index, key = rest.split(".", 1)
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return weights

    def remove(self) -> None:
        """Removes the file, where there is one."""
        if self.path.exists():
            self.path.unlink()
            self._tell()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed()
