"""What the safetensors files that EditFleet writes say of themselves, by kind: a JSON object in each file's header.

A file is held against its model here when it is read; `files` does that, and sees to the fields that all have.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from editors.core.patches.origin import Origin

FORMAT = 2  # of all kinds; files of format 1 have no checksums


class Header(BaseModel):
    """Base of all headers. `sha256` is that of the header without it, and `tensors` has that of each tensor, by name.

    `cure` is what to do about a file that is damaged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    cure: ClassVar[str]
    kind: str
    format: int = 1
    sha256: str | None = None
    tensors: dict[str, str] | None = None

    @classmethod
    def name(cls) -> str:
        """The kind of file, as people call it."""
        return str(cls.model_fields["kind"].default)


class PatchHeader(Header):
    """`terms` are the fields of each term that are no tensors, with its `kind`. Files of old have no `origin`."""

    cure = "make the edit again, or take another copy of the file"
    kind: Literal["patch"] = "patch"
    info: dict[str, Any]
    terms: tuple[dict[str, Any], ...]
    origin: Origin | None = None


class ArtefactHeader(Header):
    cure = "train it again (`editfleet train`), or take another copy of the file"
    kind: Literal["trained editor"] = "trained editor"
    editor: str
    version: int
    config: dict[str, Any]
    model: str
    report: dict[str, Any] = {}


class MomentsHeader(Header):
    """`counts` are the numbers of keys, by module path, as the tensors are."""

    cure = "take them from the text again"
    kind: Literal["second moments"] = "second moments"
    counts: dict[str, NonNegativeInt]


class SoughtHeader(Header):
    cure = "remove the file, and they are sought again"
    kind: Literal["sought values"] = "sought values"


class CheckpointHeader(Header):
    cure = "remove the file, and what it was of starts anew"
    kind: Literal["checkpoint"] = "checkpoint"


class Progress(BaseModel):
    """How far a training run is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    step: NonNegativeInt = 0
    best_step: NonNegativeInt = 0
    best_loss: float = math.inf
    skipped: NonNegativeInt = 0


class TrainingHeader(CheckpointHeader):
    """`run` identifies what is trained, on what and how."""

    run: str
    progress: Progress


class PretrainingHeader(CheckpointHeader):
    step: NonNegativeInt
    config: str
