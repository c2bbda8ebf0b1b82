"""SERAC: keep edits in a memory and let a small model answer what lies in their scope (Mitchell et al. 2022b, section
3). The classifier that decides, and the small model, are trained; an edit is then a line of text."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.artefacts import Artefact
from editors.core.editor import Editor, Resources
from editors.core.examples import Example
from editors.core.files import Slot
from editors.core.memory import ADAM, BEST, SINGLE, Bytes, Needs
from editors.core.methods.checkpoints import Checkpoint
from editors.core.methods.sides import SideConfig, build, check_sides
from editors.core.methods.training import OnStep, Trainee, TrainingConfig, fit
from editors.core.models.architectures import Shape
from editors.core.models.batches import Encoded
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Patch, Route
from editors.core.patches.route import SideModel, Tokens
from editors.core.requests import EditRequest

SIDE = 200_000_000  # parameters of the model that is trained, at most
BEFORE = (("entry", "question"), ("negatives", "batch"))
NEAREST = 1e-6  # squared distance below which the loss of a negative grows no further


class SeracConfig(SideConfig, TrainingConfig):
    """The two models, and how they are trained."""

    steps: PositiveInt = 100_000
    """Steps of the optimiser, at most. Mitchell et al. 2022b, published configuration."""

    batch_size: PositiveInt = 10
    """Examples in a batch. Mitchell et al. 2022b, published configuration."""

    learning_rate: PositiveFloat = 1e-5
    """Adam's learning rate. Mitchell et al. 2022b, published configuration."""

    accumulate: PositiveInt = 10
    """Batches whose gradients make one step. Mitchell et al. 2022b, published configuration."""

    validate_every: PositiveInt = 500
    """Steps between looks at the loss on held-out examples. Mitchell et al. 2022b, published configuration."""

    validation_examples: PositiveInt = 500
    """Examples that are held out, with whole subjects. Mitchell et al. 2022b, published configuration."""

    patience: int = Field(4000, ge=1)
    """Steps after which training ends when the loss on held-out examples has not fallen. Mitchell et al. 2022b,
    published configuration."""

    edit_weight: PositiveFloat = 0.1
    """Weight of the side model's negative log-likelihood of the new answer. Mitchell et al. 2022b, published
    configuration."""

    scope_weight: PositiveFloat = 1.0
    """Weight of the classifier's negative log-likelihood of what is in scope. Mitchell et al. 2022b, published
    configuration."""

    unchanged: PositiveInt = 1
    """Questions of each example, at most, that are out of its scope. Mitchell et al. 2022b, published configuration."""

    negatives: Literal["batch", "own"] = "batch"
    """What is out of an entry's scope in training: its `own` example's questions (Mitchell et al. 2022b, published
    code), or also what the rest of the `batch` asks about other subjects, ours."""


class SERAC(Editor[SeracConfig]):
    """Adds requests to the memory of a `Route`; nothing is computed, and an artefact holds all that was learned."""

    name = "serac"
    version = 1
    in_weights = False
    Config = SeracConfig
    joint = True
    trained = True

    def __init__(self, model: LanguageModel, config: SeracConfig, resources: Resources | None = None,
                 seed: int = 0) -> None:
        super().__init__(model, config, resources, seed)
        if self.artefact.digest not in model.sides:
            model.sides[self.artefact.digest] = restore(model, self.artefact)

    @classmethod
    def cost(cls, config: SeracConfig, shape: Shape) -> float:
        return 0.0  # an edit is a line of text

    @classmethod
    def needs(cls, config: SeracConfig, of: Bytes, facts: int = 1) -> Needs:
        return Needs(held=SINGLE * min(of.shape.parameters, SIDE))

    @classmethod
    def training_needs(cls, config: SeracConfig, of: Bytes) -> Needs:
        return Needs(held=SINGLE * (ADAM + BEST) * min(of.shape.parameters, SIDE))

    @classmethod
    def training_cost(cls, config: SeracConfig, shape: Shape) -> float:
        return config.cost(replace(shape, parameters=min(shape.parameters, SIDE)))

    @classmethod
    def training_settings(cls, config: SeracConfig) -> dict[str, Any]:
        # Left out where they are as before there was a choice: what was trained then is what would be trained now.
        return {name: value for name, value in super().training_settings(config).items()
                if (name, value) not in BEFORE}

    @classmethod
    def check(cls, config: SeracConfig, model_config: Any) -> None:
        check_sides(config, model_config)

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        return [self.edit([request]) for request in requests]

    def edit(self, requests: Sequence[EditRequest]) -> Patch:
        if not requests:
            return Patch()
        for request in requests:
            for reader in (self.model, self.model.sides[self.artefact.digest].model):
                reader.encode(request.prompt, request.target)  # what cannot be read is refused now
        memory = tuple((request.prompt, request.target) for request in requests)
        return Patch((Route(side=self.artefact.digest, memory=memory),), {"editor": "serac"})

    @classmethod
    def train(cls, model: LanguageModel, config: SeracConfig, examples: Sequence[Example], *, seed: int = 0,
              checkpoint: Checkpoint | None = None, on_step: OnStep | None = None) -> Artefact:
        cls.check(config, model.module.config)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            side = build(model, config)
        trainee = _Trainee(side, config, model.digest)
        report = fit(trainee, examples, config, seed=seed, checkpoint=checkpoint, on_step=on_step)
        tensors = {name: weight.detach().half() for name, weight in _learned(side)}
        return Artefact(cls.name, cls.training_version, cls.training_settings(config), model.digest, tensors, report)


def restore(model: LanguageModel, artefact: Artefact) -> SideModel:
    """The classifier and the side model that an artefact holds, in fp32 and frozen."""
    with torch.random.fork_rng():
        side = build(model, artefact.settled(SeracConfig), artefact.tensors)
    weights = dict(_learned(side))
    learned = artefact.fitted({name: Slot(torch.half, tuple(weight.shape)) for name, weight in weights.items()})
    for name, weight in weights.items():
        weight.data.copy_(learned[name])
        weight.requires_grad_(False)
    return side


def _learned(side: SideModel) -> Iterator[tuple[str, nn.Parameter]]:
    """The weights that training changes, by name."""
    return ((name, weight) for name, weight in _modules(side).named_parameters() if weight.requires_grad)


def _modules(side: SideModel) -> nn.ModuleDict:
    return nn.ModuleDict({"classifier": side.classifier.module, "model": side.model.module})


class _Trainee(Trainee):
    """Classifier and side model, each by its own loss: neither sees the other, nor the edited model."""

    config: SeracConfig

    def __init__(self, side: SideModel, config: SeracConfig, digest: str = "") -> None:
        self.side, self.config = side, config
        self.module = _modules(side)
        self.name = f"SERAC for {digest}"

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [weight for _, weight in _learned(self.side)]}]

    def losses(self, examples: Sequence[Example], rng: random.Random) -> Iterator[Tensor]:
        """edit_weight · NLL_c(o | "p o x") + scope_weight · (-log scope of what is in, and -log(1 - scope) of what is
        out)."""
        questions = [rng.choice((example.request.prompt, *example.paraphrases)) for example in examples]
        outside = [[question.prompt for question in example.sample_unchanged(self.config.unchanged, rng)]
                   for example in examples]
        yield (self.config.edit_weight * self._nll(examples, questions)
               + self.config.scope_weight * self._scope(examples, questions, outside))

    def _nll(self, examples: Sequence[Example], questions: Sequence[str]) -> Tensor:
        """Of the answers, by the side model that reads each question behind its own entry; the mean over tokens."""
        model = self.side.model
        rows: list[Encoded] = []
        for example, question in zip(examples, questions, strict=True):
            request = example.request
            asked = model.encode(question, request.target, end=True)
            rows.append(self.side.in_context((request.prompt, request.target), asked))
        batch = model.collate(rows)
        return model.target_nll(model.states(batch), batch).mean()

    def _scope(self, examples: Sequence[Example], questions: Sequence[str], outside: Sequence[list[str]]) -> Tensor:
        """mean_in ‖g(z) - g(x)‖² - mean_out log(1 - exp(-‖g(z) - g(x)‖²)) for entries z and texts x.

        Out of an entry's scope are the texts of `outside`, and what the batch asks about other subjects.
        """
        entries = [self.side.seen((example.request.prompt, example.request.target)) for example in examples]
        asked = [self.side.encode(text).prompt for text in questions]
        pairs = [(entry, self.side.encode(text).prompt) for entry, some in zip(entries, outside, strict=True)
                 for text in some]
        if self.config.negatives == "batch":
            pairs += [(entry, text) for entry, one in zip(entries, examples, strict=True)
                      for text, other in zip(asked, examples, strict=True)
                      if one.request.subject != other.request.subject]
        texts = list(dict.fromkeys([*entries, *asked, *(text for _, text in pairs)]))
        place = {text: number for number, text in enumerate(texts)}
        vectors = self.side.classifier(texts)

        def distance(pairs: Sequence[tuple[Tokens, Tokens]]) -> Tensor:
            """‖g(z) - g(x)‖² [pairs]."""
            left, right = ([place[pair[end]] for pair in pairs] for end in (0, 1))
            return (vectors[left] - vectors[right]).square().sum(1)

        # -log scope, for scope = exp(-distance)
        inside = distance(list(zip(entries, asked, strict=True))).mean()
        apart = [pair for pair in pairs if pair[0] != pair[1]]
        if not apart:
            return inside
        # -log(1 - scope), which has no bound where two texts are the same to the classifier
        return inside - (-torch.expm1(-distance(apart).clamp(min=NEAREST))).log().mean()
