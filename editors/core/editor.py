"""The contract of an editing method: edit requests in, patches out, the model untouched."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, cast

from torch import Tensor
from typing_extensions import TypeVar

from editors.core.artefacts import Artefact
from editors.core.errors import InputError
from editors.core.examples import Example
from editors.core.memory import Bytes, Needs
from editors.core.methods.checkpoints import Checkpoint
from editors.core.models.architectures import Shape
from editors.core.models.model import LanguageModel
from editors.core.models.statistics import SecondMoment
from editors.core.patches.origin import Base, Fact, Making, Origin, Part, versions
from editors.core.patches.patch import Patch
from editors.core.places import scrubbed, shown
from editors.core.requests import EditRequest
from editors.core.settings import Settings

REQUEST = 10  # tokens that take as long as an edit's prompt and answer, forth and back, with as many steps as it needs


class EditorConfig(Settings):
    """Base of every method's configuration. `models` are the settings that name other models: what these hold is part
    of what a task is, and relative paths start where the campaign's do."""

    models: ClassVar[tuple[str, ...]] = ()

    @property
    def edited_layers(self) -> tuple[int, ...]:
        """The blocks of the decoder that get edited; checked against the model's before anything runs."""
        return ()

    @property
    def edited_encoder_layers(self) -> tuple[int, ...]:
        """Likewise, of the encoder."""
        return ()


@dataclass(frozen=True)
class Resources:
    """What was prepared before editing, once per model: second moments of FFN keys by module path, and what a trained
    method learned."""

    statistics: Mapping[str, SecondMoment] = field(default_factory=dict)
    artefact: Artefact | None = None


C = TypeVar("C", bound=EditorConfig, default=Any)


class Editor(ABC, Generic[C]):
    """An editing method bound to one frozen model, with settings of class `C`.

    A subclass names itself and its `Config`, bumps `version` whenever its results change, and implements `edit_each`;
    one that is `trained` implements `train` too, bumps `training_version` whenever that yields something else, and is
    given the outcome. `cost` and `training_cost` say what both
    take, `needs` and `training_needs` what of memory. Sequential editing needs nothing: call the editor inside
    `overlay(model, patch_so_far)`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    training_version: ClassVar[int] = 1  # of what training yields, for edits to change without training anew
    Config: type[C] = cast("type[C]", EditorConfig)  # a method without settings needs no other
    joint: ClassVar[bool] = False
    apart: ClassVar[bool] = False  # whether `seek` finds, request by request, most of what a joint edit takes
    decoder_only: ClassVar[bool] = False
    trained: ClassVar[bool] = False
    in_weights: ClassVar[bool] = True  # whether its patches are changes of weights, which `save_edited` can write

    def __init__(self, model: LanguageModel, config: C, resources: Resources | None = None,
                 seed: int = 0) -> None:
        self.model, self.config, self.seed = model, config, seed
        self.resources = resources or Resources()
        #: What `seek` found of requests, on the model as it stands, for `edit` not to seek it again.
        self.sought: Mapping[EditRequest, Tensor] = {}
        if self.trained and self.resources.artefact is None:
            raise InputError(f"editor '{self.name}' has to be trained first; pass what `{type(self).__name__}.train` "
                             "returns as `Resources(artefact=...)`")
        if self.resources.artefact is not None:
            self.resources.artefact.check(self.name, self.training_version, model.digest)

    @classmethod
    def cost(cls, config: C, shape: Shape) -> float:
        """Floating point operations of making one edit of a model of this shape; by default as many as fine-tuning's.
        A rough figure will do: tasks' time limits, the forecast and the order of tasks are made of it, no result."""
        return shape.flops(REQUEST * getattr(config, "steps", 1))

    @classmethod
    def training_cost(cls, config: C, shape: Shape) -> float:
        """Likewise, of training the method where it does not stop early; 0 where nothing is trained."""
        return 0.0

    @classmethod
    def needs(cls, config: C, of: Bytes, facts: int = 1) -> Needs:
        """What edits of so many facts each take of memory, on a model that takes `of`; by default next to nothing.
        Budgets of tokens and edits are made of it, and what plans tell."""
        return Needs()

    @classmethod
    def training_needs(cls, config: C, of: Bytes) -> Needs:
        """Likewise, training the method."""
        return Needs()

    @classmethod
    def statistics_layers(cls, config: C) -> tuple[int, ...]:
        """Layers whose FFN keys' second moments the method needs in `resources`."""
        return ()

    @classmethod
    def check(cls, config: C, model_config: Any) -> None:
        """Raises `InputError` where what the settings name is missing, or does not go with a model of this Hugging Face
        configuration. Asked before a campaign's first task; it may read files."""

    @classmethod
    def content(cls, config: C) -> dict[str, str]:
        """Digests of the models that settings name, by the names of these settings."""
        from editors.core.models.loading import model_digest

        named = {name: getattr(config, name) for name in cls.Config.models}
        return {name: model_digest(path) for name, path in named.items() if path is not None}

    @classmethod
    def training_settings(cls, config: C) -> dict[str, Any]:
        """The part of the configuration, as JSON, that decides what training yields."""
        return config.model_dump(mode="json")

    @classmethod
    def train(cls, model: LanguageModel, config: C, examples: Sequence[Example], *, seed: int = 0,
              checkpoint: Checkpoint | None = None, on_step: Callable[[int, float], None] | None = None) -> Artefact:
        """Learns from facts what `edit_each` will need. A run that was cut short goes on from its `checkpoint`,
        and `on_step` is told the step and the loss."""
        raise InputError(f"editor '{cls.name}' needs no training")

    @property
    def artefact(self) -> Artefact:
        """What training yielded, for methods that are trained."""
        assert self.resources.artefact is not None
        return self.resources.artefact

    @property
    def provenance(self) -> dict[str, Any]:
        """What it settled on that no setting says, as JSON; a campaign keeps it with the results."""
        return {}

    def signed(self, patch: Patch, requests: Sequence[EditRequest]) -> Patch:
        """The patch of these requests, all as one part, with where it comes from: it fits no other model any more."""
        model, artefact = self.model, self.resources.artefact
        part = Part(terms=len(patch.terms), facts=tuple(
            Fact(id=each.id, prompt=each.prompt, subject=each.subject, target=each.target) for each in requests))
        making = Making(editor=self.name, version=self.version, seed=self.seed, versions=versions(), parts=(part,),
                        settings=json.loads(scrubbed(self.config.model_dump_json())),
                        artefact=None if artefact is None else artefact.digest)
        base = Base(name=shown(model.name), digest=model.digest, dtype=str(model.module.dtype).removeprefix("torch."))
        return replace(patch, origin=Origin(model=base, makings=(making,)))

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
                         "Use the single or sequential protocol, or an editor that has one (calinet, ft, ke, "
                         "memit, mend, serac)")

    def seek(self, requests: Sequence[EditRequest]) -> Tensor:
        """[requests, size]: what a joint edit needs of each of these by itself, whatever the others are."""
        raise TypeError(f"editor '{self.name}' has nothing to seek before a joint edit")
