"""Reads PyTorch's pickled checkpoints, of which nothing but tensors is ever unpickled."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping

import torch
from torch import Tensor

from editors.core.models.folder import ModelFolder

CALLED = re.compile(r"GLOBAL (\w+(?:\.\w+)+)")


def read_pickle(folder: ModelFolder, file: str, *, device: str = "cpu") -> Mapping[str, Tensor]:
    """The weights by name, mapped into memory where the file's form allows it (PyTorch 1.6 and later); on device "meta"
    no values are read. Raises `InputError` for a file that is damaged or holds anything but tensors."""
    path = folder.path / file
    # A pickle may call any function there is; PyTorch's own unpickler, asked so, calls those that make tensors.
    try:
        found = torch.load(path, map_location=device, weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise folder.refusal(f"'{file}' is missing; fetch it again") from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of a file that is broken in the middle, any
        if called := CALLED.search(str(error)):
            raise folder.refusal(f"'{file}' is a pickle that would call '{called[1]}', and was not opened; take the "
                                 "model in safetensors, from whoever made it") from error
        raise folder.refusal(f"'{file}' is cut short, damaged, or no checkpoint of PyTorch; fetch it again") from error
    if not isinstance(found, Mapping) or not all(isinstance(part, Tensor) for part in found.values()):
        raise folder.refusal(f"'{file}' holds more than weights by their names; load it with what made it, and "
                             "`save_pretrained` the model")
    return found
