"""What tasks are about, by content: models, editors, cases and files, each with what identifies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from editors.core.models.architectures import UNKNOWN, Shape, architecture
from editors.core.models.layouts import COMPOSED
from evaluators.cases import Case
from evaluators.datasets import texts_of


def digest(value: object) -> str:
    """24 hexadecimal digits that identify a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return _short(text.encode())


def _short(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:24]


@dataclass(frozen=True)
class ModelRef:
    """Where a model is, which it is, how large, on how many threads it computes, and whether with a `fused` activation
    function in the place of one composed of several. `key` alone counts: two paths to the same weights are one model.
    """

    path: str
    digest: str
    dtype: str
    shape: Shape = UNKNOWN
    threads: int = 1
    fused: bool = False

    @staticmethod
    def of(path: str, digest: str, dtype: str, config: Any, threads: int) -> ModelRef:
        """A model with this Hugging Face configuration."""
        activation = getattr(config, architecture(config, path).activation)
        return ModelRef(path, digest, dtype, Shape.of(config), threads, activation in COMPOSED)

    @property
    def key(self) -> str:
        """Of what is computed with, too: sums are rounded otherwise where more threads share them, and so are
        activations in one operation."""
        return (f"{self.digest}-{self.dtype}" + (f"-{self.threads}-threads" if self.threads > 1 else "")
                + ("-fused" if self.fused else ""))


@dataclass(frozen=True)
class EditorRef:
    """A method and its whole configuration, as JSON; `content` has digests of the models that settings name, under the
    names of these settings: in the identity they stand in the place of paths."""

    name: str
    version: int
    config: Mapping[str, Any]
    content: Mapping[str, str] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "config": {**self.config, **self.content}}


@dataclass(frozen=True)
class Chunk:
    """Consecutive cases of a data set, the first of which is case number `first`, counted from 1. `source` says how the
    data set was read, and is no part of the identity."""

    dataset: str
    first: int
    cases: Sequence[Case]
    source: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Of the cases' content; fields that are not used do not count, so that new ones change no id."""
        return _short(b"[" + b",".join(texts_of(self.cases)) + b"]")

    @property
    def last(self) -> int:
        return self.first + len(self.cases) - 1

    def __str__(self) -> str:
        return f"{self.dataset}, cases {self.first}-{self.last}"


@dataclass(frozen=True)
class ArtefactRef:
    """A file with what a trained method learned, and the digest of its content."""

    path: str
    digest: str
