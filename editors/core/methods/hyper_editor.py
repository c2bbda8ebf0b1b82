"""Trains a hypernetwork by letting it practise edits on the frozen model, and edits with it (KE, MEND)."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from editors.core.artefacts import Artefact
from editors.core.editor import Editor
from editors.core.examples import Example
from editors.core.files import Slot
from editors.core.methods.checkpoints import Checkpoint
from editors.core.methods.hypernetwork import (
    Factors,
    HyperConfig,
    Hypernetwork,
    first_block,
    matrices,
    patches,
    read_factors,
    updated,
)
from editors.core.methods.training import OnStep, Trainee, fit
from editors.core.models.architectures import Shape
from editors.core.models.batches import Batch, BlockRef, Encoded
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Patch
from editors.core.requests import EditRequest

H = TypeVar("H", bound=HyperConfig)
HYPER = 30  # tokens that take as long as an edit's gradient and what a network makes of it


class PartRuns:
    """Rows as they enter block `first`, and what the model answers: computed once per row, while `limit` bytes last."""

    def __init__(self, model: LanguageModel, first: BlockRef, limit: int) -> None:
        self.model, self.first, self.left = model, first, limit
        self._hidden: dict[Encoded, Tensor] = {}
        self._states: dict[Encoded, Tensor] = {}

    @torch.no_grad()
    def batch(self, rows: Sequence[Encoded]) -> tuple[Batch, Tensor]:
        """The rows as a batch, and the hidden states [rows, length, width] to resume from."""
        hidden = {row: self._hidden[row] for row in rows if row in self._hidden}
        if missing := [row for row in dict.fromkeys(rows) if row not in hidden]:
            part_runs = self.model.run_to(self.model.collate(missing), self.first)
            for row, states in zip(missing, part_runs, strict=True):
                length = len(row.prompt) if self.model.has_encoder else len(row)
                hidden[row] = self._keep(self._hidden, row, states[:length].clone())
        padded = nn.utils.rnn.pad_sequence([hidden[row] for row in rows], batch_first=True)
        return self.model.collate(rows), padded

    def run_from(self, hidden: Tensor, batch: Batch) -> Tensor:
        return self.model.run_from(hidden, batch, self.first)

    @torch.no_grad()
    def log_probs(self, rows: Sequence[Encoded]) -> Tensor:
        """What the model as it stands predicts [targets, vocabulary], row after row."""
        states = {row: self._states[row] for row in rows if row in self._states}
        if missing := [row for row in dict.fromkeys(rows) if row not in states]:
            batch, hidden = self.batch(missing)
            final = self.run_from(hidden, batch)[batch.row, batch.position]
            for row, part in zip(missing, final.split([len(row.target) for row in missing]), strict=True):
                states[row] = self._keep(self._states, row, part.clone())
        return self.model.head(torch.cat([states[row] for row in rows])).log_softmax(-1)

    def _keep(self, kept: dict[Encoded, Tensor], row: Encoded, value: Tensor) -> Tensor:
        if value.nbytes <= self.left:
            kept[row] = value
            self.left -= value.nbytes
        return value


class HyperTrainee(Trainee):
    """Practises edits, many side by side. Factors carry no graph: the update is learned to first order."""

    module: Hypernetwork
    config: HyperConfig

    def __init__(self, model: LanguageModel, config: HyperConfig, network: Hypernetwork) -> None:
        self.model, self.config, self.module = model, config, network
        self.name = f"{type(network).__name__} for {model.digest}"
        self.matrices = matrices(model, config)
        self.part_runs = PartRuns(model, first_block(model, config), config.cache_bytes)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self.module.parameter_groups()

    def factors(self, requests: Sequence[EditRequest]) -> dict[str, Factors]:
        batch, hidden = self.part_runs.batch([self._encode(request.prompt, request.target) for request in requests])
        return read_factors(self.model, self.matrices, batch, partial(self.part_runs.run_from, hidden))

    def loss(self, examples: Sequence[Example], rng: random.Random) -> Tensor:
        """edit_weight · NLL(o | asked) + locality_weight · KL(p ‖ p_edited), means over the rows of either kind."""
        config = self.config
        requests = [example.request for example in examples]
        updates = self.module(self.factors(requests), requests)
        asked = [self._encode(rng.choice(example.paraphrases) if config.outer == "rephrase" and example.paraphrases
                              else example.request.prompt, example.request.target) for example in examples]
        kept = [(number, self._encode(question.prompt, question.target)) for number, example in enumerate(examples)
                for question in example.sample_unchanged(config.unchanged, rng)]
        edits = [*range(len(examples)), *(number for number, _ in kept)]
        batch, hidden = self.part_runs.batch([*asked, *(row for _, row in kept)])
        with updated(self.model, updates, torch.tensor(edits, device=self.model.device)):
            states = self.part_runs.run_from(hidden, batch)
        logits = self.model.head(states[batch.row, batch.position])
        # -log p_edited(o_t | asked, o_<t)
        own = batch.row < len(examples)
        nll = nn.functional.cross_entropy(logits[own], batch.target[own], reduction="none")
        loss = config.edit_weight * _mean_of_rows(nll, batch.row[own])
        if not kept:
            return loss
        # KL(p ‖ p_edited) at every answer token of the questions that should stay
        kl = nn.functional.kl_div(logits[~own].log_softmax(-1), self.part_runs.log_probs([row for _, row in kept]),
                                  reduction="none", log_target=True).sum(-1)
        return loss + config.locality_weight * _mean_of_rows(kl, batch.row[~own])

    def _encode(self, prompt: str, target: str) -> Encoded:
        return self.model.encode(prompt, target, end=True)


def _learned(network: Hypernetwork) -> dict[str, Tensor]:
    """A network's weights and statistics as artefacts hold them."""
    return {name: tensor.half() if name.endswith(network.in_half) else tensor
            for name, tensor in network.state_dict().items()}


def _mean_of_rows(values: Tensor, row: Tensor) -> Tensor:
    """The mean over rows of each row's mean."""
    counts = torch.bincount(row)
    return (values / counts[row]).sum() / (counts > 0).sum()


class HyperEditor(Editor[H]):
    """An editor whose patch a trained `Hypernetwork` writes; a subclass builds that network."""

    joint = True
    trained = True

    @classmethod
    def cost(cls, config: H, shape: Shape) -> float:
        return shape.flops(HYPER)

    @classmethod
    def training_cost(cls, config: H, shape: Shape) -> float:
        return config.cost(shape)

    @classmethod
    @abstractmethod
    def build(cls, model: LanguageModel, config: H) -> Hypernetwork:
        """The network before training, its weights random where they are."""

    @classmethod
    def begin(cls, trainee: HyperTrainee, examples: Sequence[Example], seed: int) -> None:
        """Called before the first step, for what is not random."""

    @classmethod
    def complete(cls, model: LanguageModel, config: H,
                 requests: Sequence[EditRequest]) -> list[EditRequest]:
        """Requests with all that the network reads of them."""
        return list(requests)

    @classmethod
    def training_settings(cls, config: H) -> dict[str, Any]:
        return config.model_dump(mode="json", exclude={"edits_at_once", "cache_bytes"})

    @classmethod
    def train(cls, model: LanguageModel, config: H, examples: Sequence[Example], *, seed: int = 0,
              checkpoint: Checkpoint | None = None, on_step: OnStep | None = None) -> Artefact:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = cls.build(model, config).to(model.device)
        requests = [request for start in range(0, len(examples), config.edits_at_once)
                    for request in cls.complete(model, config, [example.request for example in
                                                                examples[start: start + config.edits_at_once]])]
        examples = [replace(example, request=request) for example, request in zip(examples, requests, strict=True)]
        trainee = HyperTrainee(model, config, network)
        cls.begin(trainee, examples, seed)
        report = fit(trainee, examples, config, seed=seed, checkpoint=checkpoint, on_step=on_step)
        return Artefact(cls.name, cls.version, cls.training_settings(config), model.digest, _learned(network), report)

    @cached_property
    def _trained_config(self) -> H:
        """The configuration, as far as training has settled it the artefact's."""
        return self.artefact.settled(type(self.config), **self.config.model_dump())

    @cached_property
    def _network(self) -> Hypernetwork:
        with torch.device("meta"):
            network = self.build(self.model, self._trained_config)
        learned = self.artefact.fitted({name: Slot.of(tensor) for name, tensor in _learned(network).items()})
        network.load_state_dict({name: tensor.float() for name, tensor in learned.items()}, assign=True)
        return network.requires_grad_(False).to(self.model.device)

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        return self._patches(requests)

    def edit(self, requests: Sequence[EditRequest]) -> Patch:
        """The sum of the requests' own patches."""
        return sum(self._patches(requests), Patch()).compact()

    @torch.no_grad()
    def _patches(self, requests: Sequence[EditRequest], total: int | None = None) -> list[Patch]:
        made = []
        for start in range(0, len(requests), self.config.edits_at_once):
            part = self.complete(self.model, self._trained_config, requests[start: start + self.config.edits_at_once])
            batch = self.model.collate([self.model.encode(r.prompt, r.target, end=True) for r in part])
            factors = read_factors(self.model, matrices(self.model, self._trained_config), batch, self.model.states,
                                   total)
            made += patches(self._network(factors, part), {"editor": self.name})
        return made
