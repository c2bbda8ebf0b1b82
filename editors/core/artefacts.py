"""What a trained editing method needs besides its configuration: one safetensors file, bound to one model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from editors.core.errors import InputError, first_problem
from editors.core.files import Slot, all_finite, misfit, raw_bytes, read_tensors, write_tensors
from editors.core.headers import ArtefactHeader
from editors.core.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

AGAIN = "train it again (`editfleet train`), or leave it out and the campaign does"
C = TypeVar("C", bound=Settings)


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
            running.update(raw_bytes(tensor))
        return running.hexdigest()[:24]

    def _header(self) -> dict[str, Any]:
        return {"editor": self.editor, "version": self.version, "config": dict(self.config), "model": self.model}

    def check(self, editor: str, version: int, model: str) -> None:
        """Raises `InputError` unless it was trained for this method, version and model digest, and is finite."""
        wanted = {"editor": editor, "version": version, "model": model}
        for what, value in wanted.items():
            found = getattr(self, what)
            if found != value:
                raise InputError(f"the artefact was trained for {what} '{found}', not '{value}'; {AGAIN}")
        for name, tensor in self.tensors.items():
            if not all_finite(tensor):
                raise InputError(f"the artefact's tensor '{name}' has numbers that are not finite; {AGAIN}")

    def settled(self, schema: type[C], **others: Any) -> C:
        """The settings it was trained with, and `others` where it has none. Raises `InputError` where it cannot have
        been trained with them."""
        try:
            return schema.model_validate({**others, **self.config})
        except ValidationError as error:
            raise InputError(f"the artefact's settings are none of editor '{self.editor}': {first_problem(error)}; "
                             f"{AGAIN}") from error

    def fitted(self, wanted: Mapping[str, Slot]) -> Mapping[str, Tensor]:
        """The tensors. Raises `InputError`, naming one, unless they are those that the method has, by name, shape and
        dtype."""
        if problem := misfit(self.tensors, wanted):
            raise InputError(f"the artefact is none of editor '{self.editor}' for this model: {problem}; {AGAIN}")
        return self.tensors

    def save(self, path: Path | str) -> None:
        """Writes one file, atomically."""
        write_tensors(path, ArtefactHeader(**self._header(), report=dict(self.report)), self.tensors)

    @staticmethod
    def load(path: Path | str) -> Artefact:
        """Reads a file written by `save`. Raises `InputError` for any other file."""
        header, tensors = read_tensors(path, ArtefactHeader)
        return Artefact(header.editor, header.version, header.config, header.model, tensors, header.report)
