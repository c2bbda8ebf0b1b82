"""A training run on disk: weights, optimiser state and progress in one safetensors file, replaced atomically."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from editors.core.files import Slot, damaged, misfit, read_header, read_tensors, write_tensors
from editors.core.headers import CheckpointHeader

ADAM = ("step", "exp_avg", "exp_avg_sq")  # what it keeps of a parameter, the first a number
H = TypeVar("H", bound=CheckpointHeader)


class Checkpoint:
    """The file that a training run goes on from where it was cut short.

    `changed` is called after the file was written, and after it was removed: a store that keeps it elsewhere brings its
    copy up to date then, and no thread has to watch the file.
    """

    def __init__(self, path: Path, changed: Callable[[], None] | None = None) -> None:
        self.path, self._changed = path, changed

    def save(self, weights: Mapping[str, Tensor], optimizer: torch.optim.Adam, header: CheckpointHeader) -> None:
        """Writes the run's state."""
        tensors = {f"weights.{name}": tensor for name, tensor in weights.items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        write_tensors(self.path, header, tensors)
        self._tell()

    def header(self, schema: type[H]) -> H:
        """What `save` was given as such. Raises `InputError` for a file that is missing, damaged or of another kind."""
        return read_header(self.path, schema)

    def load(self, schema: type[CheckpointHeader], weights: Mapping[str, Tensor],
             optimizer: torch.optim.Adam) -> dict[str, Tensor]:
        """Restores the optimiser; returns the weights. Raises like `header`, and where the file is not of weights like
        these and of this optimiser: then nothing has been changed."""
        header, found = read_tensors(self.path, schema)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        kept = [number for number in range(len(parameters))
                if any(f"optimizer.{number}.{key}" in found for key in ADAM)]
        wanted = {f"weights.{name}": Slot.of(tensor) for name, tensor in weights.items()}
        for number in kept:
            shape = tuple(parameters[number].shape)
            wanted |= {f"optimizer.{number}.{key}": Slot(torch.float32 if key == "step" else parameters[number].dtype,
                                                         () if key == "step" else shape) for key in ADAM}
        if problem := misfit(found, wanted):
            raise damaged(self.path, header, problem)
        state = {number: {key: found[f"optimizer.{number}.{key}"] for key in ADAM} for number in kept}
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return {name: found[f"weights.{name}"] for name in weights}

    def remove(self) -> None:
        """Removes the file, where there is one."""
        if self.path.exists():
            self.path.unlink()
            self._tell()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed()
