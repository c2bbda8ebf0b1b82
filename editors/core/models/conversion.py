"""Pickled checkpoints as safetensors, converted once and kept in the user's cache."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from editors.core.errors import InputError
from editors.core.files import save_tensors
from editors.core.models.checkpoint import Checkpoint
from editors.core.models.folder import SAFE, ModelFolder
from editors.core.models.pickles import read_pickle

BESIDE = ("config.json", "generation_config.json")  # the library looks for them beside the weights
SHARD = 2**30  # bytes, unless one weight is larger: what is held in memory at a time


def cache_folder() -> Path:
    """Where converted checkpoints are: `models` in the folder that `EDITFLEET_CACHE` names, which without it is
    `editfleet` in the user's cache (`XDG_CACHE_HOME`, or `~/.cache`)."""
    if named := os.environ.get("EDITFLEET_CACHE"):
        return Path(named) / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "editfleet" / "models"


def in_safetensors(checkpoint: Checkpoint, digest: str) -> Checkpoint:
    """The checkpoint itself, or its conversion, which is made unless it is there. `digest` identifies the model.

    Processes of one machine wait for each other; machines that share a cache may each make it, and the first to be done
    counts. Raises `InputError` where the cache cannot be written.
    """
    if not checkpoint.pickled:
        return checkpoint
    folder = cache_folder() / digest
    partial = folder.with_name(f".{digest}.{os.uname().nodename}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{partial}.lock"):
            there = folder.exists()
            if (kept := _kept(checkpoint, folder)) is not None:
                return kept
            if there:
                shutil.rmtree(folder)  # some of it was lost
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            partial.mkdir()
            _convert(checkpoint, partial)
            try:
                partial.rename(folder)
            except OSError:  # another machine's is there
                shutil.rmtree(partial)
    except OSError as error:
        raise checkpoint.folder.refusal(f"its pickled weights cannot be kept as safetensors in '{folder}' "
                                        f"({error.strerror or error}); make room there, or let EDITFLEET_CACHE name "
                                        "a folder that has some") from error
    return Checkpoint.of(ModelFolder(checkpoint.folder.name, folder))


def _kept(checkpoint: Checkpoint, folder: Path) -> Checkpoint | None:
    """A conversion that is there, and whole."""
    try:
        kept = Checkpoint.of(ModelFolder(checkpoint.folder.name, folder))
    except (InputError, OSError):
        return None
    same = kept.weights.keys() == checkpoint.weights.keys() and all(
        stored.shape == checkpoint.weights[name].shape for name, stored in kept.weights.items())
    return kept if same else None


def _convert(checkpoint: Checkpoint, folder: Path) -> None:
    for file in filter(checkpoint.folder.has, BESIDE):
        shutil.copyfile(checkpoint.folder.path / file, folder / file)
    files = dict.fromkeys(stored.file for stored in checkpoint.weights.values())
    shards = (shard for file in files for shard in _shards(read_pickle(checkpoint.folder, file)))
    listed: dict[str, str] = {}
    for number, weights in enumerate(shards, 1):
        shard = f"model-{number:05}.safetensors"
        # Each weight on its own: several may be views of one piece of memory, which a file cannot hold twice.
        save_tensors({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()},
                     folder / shard, {"format": "pt"})
        _to_disk(folder / shard)
        listed |= dict.fromkeys(weights, shard)
    (folder / SAFE[1]).write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    _to_disk(folder / SAFE[1])


def _shards(weights: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Consecutive weights of at most `SHARD` bytes, or one."""
    shard: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if shard and sum(part.nbytes for part in shard.values()) + tensor.nbytes > SHARD:
            yield shard
            shard = {}
        shard[name] = tensor
    if shard:
        yield shard


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
