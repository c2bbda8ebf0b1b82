"""Writes an edited model that is never in memory: weight by weight, from the files of the unedited one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch

from editors.core.files import atomic_folder, raw_bytes
from editors.core.models.checkpoint import FLOATS, Checkpoint
from editors.core.models.configuration import CONFIG
from editors.core.models.fitting import as_named, stored_name, tied_weights
from editors.core.models.folder import CONTENT, OTHERS, ModelFolder
from editors.core.models.loading import load_skeleton
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Patch, Term
from editors.core.patches.saving import changes, edited

SPELT = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # precisions, as headers have them
BESIDE = re.compile(r".*\.jinja|(licen[cs]e|notice).*", re.IGNORECASE)  # what goes with a model beside its content
ALIGNED = 8  # bytes, of which a header's length is a multiple

Changes = Mapping[str, tuple[str, Sequence[Term]]]  # by the name that a weight is stored under, its own and the terms


def save_merged(path: Path | str, patch: Patch, folder: Path | str, *, name: str | None = None,
                dtype: str | None = None, card: str = "") -> None:
    """Writes the model in a folder, or of a hub name, with the patch in its weights: in files of the same names, with
    the same configuration and tokenizer, as transformers reads them. `dtype` is the precision to write in; without it,
    that of the files. `card` is the text of the new folder's README.md, and `name` what messages call the model.

    One weight at a time is in memory. The folder appears whole or not at all. Raises `InputError`, before anything is
    written, for a folder that is not empty, a model that cannot be loaded, and for a patch of another model, or that
    is no change of weights.
    """
    model, found = load_skeleton(path, name=name, dtype=dtype or "float32")
    assert found.checkpoint is not None
    changed = _by_stored_name(model, found.checkpoint, changes(model, patch))
    with atomic_folder(folder) as partial:
        _copy_beside(found.folder, partial, dtype)
        for file in dict.fromkeys(stored.file for stored in found.checkpoint.weights.values()):
            _write_file(model, found.checkpoint, file, changed, dtype, partial / file)
        _write_index(found.checkpoint.folder, partial)
        if card:
            (partial / "README.md").write_text(card, encoding="utf-8")


def _by_stored_name(model: LanguageModel, checkpoint: Checkpoint, found: Mapping[str, Sequence[Term]]) -> Changes:
    named = as_named(model.module, checkpoint).weights  # in the same order
    there = dict(zip(named, checkpoint.weights, strict=True))
    tied = tied_weights(model.module, model.module.config)
    names = {name: stored_name(name, tied, named) for name in found}
    return {there[str(stored)]: (name, found[name]) for name, stored in names.items()}


def _copy_beside(folder: ModelFolder, partial: Path, dtype: str | None) -> None:
    """Copies what belongs to a model beside its weights, the configuration with the precision that these will have."""
    for file in folder.path.iterdir():
        wanted = CONTENT.fullmatch(file.name) and not OTHERS.fullmatch(file.name)
        if file.is_file() and (wanted or BESIDE.fullmatch(file.name)):
            shutil.copyfile(file, partial / file.name)
    if dtype is not None:
        config = json.loads((partial / CONFIG).read_text(encoding="utf-8"))
        config.pop("torch_dtype", None)
        (partial / CONFIG).write_text(json.dumps({**config, "dtype": dtype}, indent=2) + "\n", encoding="utf-8")


class _Slot(NamedTuple):
    """A weight in a file: how its numbers are spelt there, its shape, and its size in bytes."""

    dtype: str
    shape: list[int]
    nbytes: int

    def alignment(self) -> int:
        return self.nbytes // max(1, prod(self.shape))


def _write_file(model: LanguageModel, checkpoint: Checkpoint, file: str, changed: Changes, dtype: str | None,
                out: Path) -> None:
    """Writes a file of weights with the changes in it, by hand, as the library writes only what is in memory at once:
    eight bytes with the header's length, the header, and the weights' numbers."""
    source = checkpoint.folder.path / file
    out.parent.mkdir(parents=True, exist_ok=True)
    about, there = _header(source)
    slots = {name: _cast(slot, dtype) for name, slot in there.items()}
    if slots == there and not changed.keys() & slots.keys():
        shutil.copyfile(source, out)
        return
    header: dict[str, Any] = {"__metadata__": {**about, "format": "pt"}}
    end = 0
    for name in sorted(slots, key=lambda name: (-slots[name].alignment(), name)):  # each at a multiple of its own
        start, end = end, end + slots[name].nbytes
        header[name] = {"dtype": slots[name].dtype, "shape": slots[name].shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    with out.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in list(header)[1:]:
            weight = checkpoint.read(name)
            wanted = getattr(torch, dtype) if dtype and slots[name] != there[name] else weight.dtype
            if name in changed:
                own_name, terms = changed[name]
                weight = edited(model, own_name, weight, terms, wanted)
            stream.write(raw_bytes(weight.to(wanted)))


def _header(source: Path) -> tuple[dict[str, str], dict[str, _Slot]]:
    """What a file, which has been looked at by the library before, says of itself and of its weights."""
    with source.open("rb") as stream:
        said = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    about: dict[str, str] = said.pop("__metadata__", {})
    return about, {name: _Slot(each["dtype"], each["shape"], each["data_offsets"][1] - each["data_offsets"][0])
                   for name, each in said.items()}


def _cast(slot: _Slot, dtype: str | None) -> _Slot:
    """A weight in another precision, unless it is not of floating point numbers."""
    if dtype is None or slot.dtype not in FLOATS:
        return slot
    return _Slot(SPELT[dtype], slot.shape, prod(slot.shape) * getattr(torch, dtype).itemsize)


def _write_index(folder: ModelFolder, partial: Path) -> None:
    """That of the folder, where it has several files, with the size that they have now."""
    files = folder.weight_files()
    if files.index is None:
        return
    said = json.loads((folder.path / files.index).read_text(encoding="utf-8"))
    size = sum(slot.nbytes for file in files.names for slot in _header(partial / file)[1].values())
    (partial / files.index).write_text(json.dumps({
        **said, "metadata": {**said.get("metadata", {}), "total_size": size}}, indent=2) + "\n", encoding="utf-8")
