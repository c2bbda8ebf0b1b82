"""The weights of a model folder as the headers of their files tell: which there are, where, and of what shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from safetensors import SafetensorError, safe_open
from torch import Tensor

from editors.core.models.folder import ModelFolder
from editors.core.models.pickles import read_pickle

FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Stored:
    """Where a weight is, its shape, and whether it is made of floating point numbers of two bytes or more; `name` is
    what its file calls it."""

    file: str
    shape: tuple[int, ...]
    floating: bool
    name: str


@dataclass(frozen=True)
class Checkpoint:
    """A folder's weights by name; no values are read before `read` is called. `pickled` ones have to be converted."""

    folder: ModelFolder
    weights: Mapping[str, Stored]
    pickled: bool

    @classmethod
    def of(cls, folder: ModelFolder) -> Checkpoint:
        """Raises `InputError`, naming the file, where one is missing, cut short, or not what an index says."""
        files = folder.weight_files()
        weights: dict[str, Stored] = {}
        for file in files.names:
            for name, stored in (_pickled_header if files.pickled else _header)(folder, file).items():
                if name in weights:
                    raise folder.refusal(f"'{name}' is in '{weights[name].file}' and in '{file}'; keep one")
                weights[name] = stored
        for name, file in files.listed.items():
            if name not in weights or weights[name].file != file:
                raise folder.refusal(f"'{files.index}' says that '{name}' is in '{file}', and it is not; fetch both "
                                     "again")
        return cls(folder, weights, files.pickled)

    @property
    def largest(self) -> int:
        """Numbers in the largest weight."""
        return max((prod(stored.shape) for stored in self.weights.values()), default=0)

    def read(self, name: str) -> Tensor:
        """A weight's values, of a checkpoint that is not pickled."""
        with safe_open(self.folder.path / self.weights[name].file, "pt") as file:
            tensor: Tensor = file.get_tensor(self.weights[name].name)
            return tensor


def _header(folder: ModelFolder, file: str) -> dict[str, Stored]:
    try:
        with safe_open(folder.path / file, "pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {name: Stored(file, tuple(part.get_shape()), part.get_dtype() in FLOATS, name)
                    for name, part in slices.items()}
    except FileNotFoundError:
        raise folder.refusal(f"'{file}' is missing; fetch it again") from None
    except SafetensorError as error:
        raise folder.damaged(file) from error


def _pickled_header(folder: ModelFolder, file: str) -> dict[str, Stored]:
    return {name: Stored(file, tuple(tensor.shape), tensor.is_floating_point() and tensor.itemsize > 1, name)
            for name, tensor in read_pickle(folder, file, device="meta").items()}
