"""What a joint edit needs of each request by itself, found before it: by many workers, and once for all joint edits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from editors.core.files import damaged, read_tensors, write_tensors
from editors.core.headers import SoughtHeader


def save_sought(found: Mapping[int, Tensor], path: Path | str) -> None:
    """Writes what `Editor.seek` found of requests, by their number, as one file, atomically."""
    values = torch.stack([*found.values()]) if found else torch.empty(0, 0)
    write_tensors(path, SoughtHeader(), {"numbers": torch.tensor([*found], dtype=torch.int64), "values": values})


def load_sought(path: Path | str) -> dict[int, Tensor]:
    """The same, on the CPU. Raises `InputError` for a file that is missing or damaged."""
    header, tensors = read_tensors(path, SoughtHeader)
    numbers, values = (tensors.get(name, torch.empty(0)) for name in ("numbers", "values"))
    if numbers.ndim != 1 or values.ndim != 2 or len(numbers) != len(values):
        raise damaged(path, header, "it has no value for each request")
    return dict(zip(numbers.tolist(), values, strict=True))
