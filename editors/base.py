"""The contract of an editing method: edit requests in, patches out, the model untouched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from editors.core.errors import InputError
from editors.core.models import LanguageModel
from editors.core.patch import Patch
from editors.core.requests import EditRequest
from editors.core.statistics import SecondMoment


class EditorConfig(BaseModel):
    """Base of every method's configuration: immutable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def edited_layers(self) -> tuple[int, ...]:
        """The blocks that get edited; checked against the model's before anything runs."""
        return ()


@dataclass(frozen=True)
class Resources:
    """What was prepared before editing, once per model: second moments of FFN keys, by module path."""

    statistics: Mapping[str, SecondMoment] = field(default_factory=dict)


class Editor(ABC):
    """An editing method bound to one frozen model.

    A subclass names itself, bumps `version` whenever its results change, and implements `edit_each`. Sequential
    editing needs nothing: call the editor inside `overlay(model, patch_so_far)`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    Config: ClassVar[type[EditorConfig]] = EditorConfig
    joint: ClassVar[bool] = False

    def __init__(self, model: LanguageModel, config: EditorConfig, resources: Resources | None = None,
                 seed: int = 0) -> None:
        self.model, self.config, self.seed = model, config, seed
        self.resources = resources or Resources()

    @classmethod
    def statistics_layers(cls, config: EditorConfig) -> tuple[int, ...]:
        """Layers whose FFN keys' second moments the method needs in `resources`."""
        return ()

    @abstractmethod
    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        """One patch per request, each made from the model as it stands, as if it were the only one."""

    def edit(self, requests: Sequence[EditRequest]) -> Patch:
        """One patch that makes all edits at once. Raises `InputError` for methods that cannot (paper, Table 1)."""
        if not requests:
            return Patch()
        if len(requests) == 1:
            return self.edit_each(requests)[0]
        raise InputError(f"editor '{self.name}' makes one edit at a time: it has no joint edit of {len(requests)}. "
                         "Use the single or sequential protocol, or an editor that has (ft, memit, mend, serac)")
