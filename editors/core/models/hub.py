"""Finds models by their names: a local folder, or a repository of the hub, fetched into its local cache."""

from __future__ import annotations

import os
from pathlib import Path

from editors.core.errors import InputError
from editors.core.models.folder import PICKLED, SAFE, ModelFolder
from editors.core.places import scrubbed

# Configurations, tokenizers and indices; and what a model's licence is.
SMALL = ("*.json", "*.txt", "*.model", "README.md", "LICEN[CS]E*", "NOTICE*")


def model_folder(path: str | Path, *, weights: bool = True, what: str = "model") -> ModelFolder:
    """The folder of a model (or `what` it is), or that of a GGUF file, unpacked. All its files are of one commit, where
    it comes from the hub; without `weights`, these are not fetched. Raises `InputError` where there is none."""
    if os.path.isdir(path):
        return ModelFolder(str(path), Path(path), what=what)
    if str(path).endswith(".gguf") and os.path.isfile(path):
        from editors.core.models.gguf import unpacked  # loads torch

        return ModelFolder(str(path), unpacked(Path(path)), what=what)
    if Path(path).is_absolute() or str(path).startswith("."):
        raise InputError(f"cannot load {what} '{path}': there is no such folder")
    try:
        found = _snapshot(str(path), *SMALL)
        folder = ModelFolder(str(path), found, found.name, what)
        if weights:
            _fetch_weights(folder)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot load {what} '{path}': there is no such folder, and it is not in the local hub cache nor could it "
            f"be downloaded. Check the name, or fetch it where there is a network (`hf download {path}`) and name the "
            f"folder instead ({scrubbed(str(error)).splitlines()[0]})") from error
    return folder


def _snapshot(name: str, *patterns: str, commit: str | None = None) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=commit, allow_patterns=list(patterns)))


def _fetch_weights(folder: ModelFolder) -> None:
    """In safetensors where the repository has them, else pickled. Its indices are there already."""
    for single, index in (SAFE, PICKLED):
        files = folder.weight_files().names if folder.has(index) else ()
        _snapshot(folder.name, *SMALL, single, *files, commit=folder.commit)  # of patterns without a file it warns
        if folder.has(single) or folder.has(index):
            return
