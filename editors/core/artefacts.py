"""What a trained editing method needs besides its configuration: one safetensors file, bound to one model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from editors.core.errors import InputError

FORMAT = "editfleet-artefact-1"


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
        path = Path(path)
        header = {"format": FORMAT, "artefact": json.dumps({**self._header(), "report": dict(self.report)})}
        partial = path.with_name(path.name + ".partial")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}, partial, header)
        partial.replace(path)

    @staticmethod
    def load(path: Path | str) -> Artefact:
        """Reads a file written by `save`. Raises `InputError` for any other file."""
        artefact = Artefact.describe(path)
        with safe_open(path, "pt") as file:
            return replace(artefact, tensors={name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118

    @staticmethod
    def describe(path: Path | str) -> Artefact:
        """The artefact without its tensors: reads the header alone."""
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata() or {}
        except FileNotFoundError:
            raise InputError(f"there is no artefact file '{path}'") from None
        except Exception as error:
            raise InputError(f"'{path}' is not a safetensors file: {error}") from error
        if header.get("format") != FORMAT:
            raise InputError(f"'{path}' is not an artefact: its format is {header.get('format')!r}, expected "
                             f"{FORMAT!r}")
        return Artefact(**json.loads(header["artefact"]))
