"""What a trained editing method needs besides its configuration: one safetensors file, bound to one model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.core.errors import InputError
from editors.core.files import read_header, read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

KIND = "trained editor"


@dataclass(frozen=True)
class Artefact:
    """The outcome of a method's training: its tensors, the settings they were made with, the digest of the model they
    are for, and a report of how training went (JSON)."""

    editor: str
    version: int
    config: Mapping[str, Any]
    model: str
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    report: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Identifies the content: tensors and what they are for."""
        running = hashlib.sha256(json.dumps(self._header(), sort_keys=True).encode())
        for name, tensor in sorted(self.tensors.items()):
            running.update(name.encode())
            running.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
        return running.hexdigest()[:24]

    def _header(self) -> dict[str, Any]:
        return {"editor": self.editor, "version": self.version, "config": dict(self.config), "model": self.model}

    def check(self, editor: str, version: int, model: str) -> None:
        """Raises `InputError` unless it was trained for this method, version and model digest."""
        wanted = {"editor": editor, "version": version, "model": model}
        for what, value in wanted.items():
            found = getattr(self, what)
            if found != value:
                raise InputError(f"the artefact was trained for {what} '{found}', not '{value}'; train it again "
                                 "(`editfleet train`), or leave it out and the campaign does")

    def save(self, path: Path | str) -> None:
        """Writes one file, atomically."""
        write_tensors(path, KIND, {**self._header(), "report": dict(self.report)}, self.tensors)

    @staticmethod
    def load(path: Path | str) -> Artefact:
        """Reads a file written by `save`. Raises `InputError` for any other file."""
        header, tensors = read_tensors(path, KIND)
        return Artefact(**header, tensors=tensors)

    @staticmethod
    def describe(path: Path | str) -> Artefact:
        """The artefact without its tensors: reads the header alone."""
        return Artefact(**read_header(path, KIND))
