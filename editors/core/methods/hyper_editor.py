"""Trains a hypernetwork by letting it practise edits on the frozen model, and edits with it (KE, MEND)."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from editors.core.artefacts import Artefact
from editors.core.editor import Editor
from editors.core.examples import Example
from editors.core.files import Slot
from editors.core.memory import ADAM, ANSWER, BEST, PROMPT, SINGLE, Bytes, Needs
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
from editors.core.models.batches import Batch, BlockRef, Encoded, by_length
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Patch
from editors.core.requests import EditRequest

H = TypeVar("H", bound=HyperConfig)
FACTORS = 4  # tensors of an edit's factors: in fp32, masked, as the network gives them, and in the patch
PASS = {"cpu": 16}  # tokens of padding that take as long as another pass, by device: on others nearly all do
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
                hidden[row] = self._keep(self._hidden, row, states[: self.model.length(row)].clone())
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


@dataclass(frozen=True)
class _Practised:
    """An edit, and the rows that are asked with it on: for its answer, and what should stay."""

    request: EditRequest
    asked: Encoded
    kept: list[Encoded] = field(default_factory=list)


class HyperTrainee(Trainee):
    """Practises edits, many side by side. Factors carry no graph: the update is learned to first order. An example
    takes about `each` bytes."""

    module: Hypernetwork
    config: HyperConfig

    def __init__(self, model: LanguageModel, config: HyperConfig, network: Hypernetwork, each: float = 0.0) -> None:
        self.model, self.config, self.module, self.each = model, config, network, each
        self.name = f"{type(network).__name__} for {model.digest}"
        self.matrices = matrices(model, config)
        most = min(config.cache_bytes, int(model.weights.free(model.device) / 4))
        self.part_runs = PartRuns(model, first_block(model, config), most)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self.module.parameter_groups()

    def factors(self, requests: Sequence[EditRequest]) -> dict[str, Factors]:
        batch, hidden = self.part_runs.batch([self._encode(request.prompt, request.target) for request in requests])
        return read_factors(self.model, self.matrices, batch, partial(self.part_runs.run_from, hidden))

    def losses(self, examples: Sequence[Example], rng: random.Random) -> Iterator[Tensor]:
        """edit_weight · NLL(o | asked) + locality_weight · KL(p ‖ p_edited), means over the rows of either kind: the
        shares of as many examples as there is room for at once."""
        config = self.config
        practised = [_Practised(
            example.request, self._encode(rng.choice(example.paraphrases) if config.outer == "rephrase"
                                          and example.paraphrases else example.request.prompt, example.request.target))
            for example in examples]
        for one, example in zip(practised, examples, strict=True):
            one.kept.extend(self._encode(question.prompt, question.target)
                            for question in example.sample_unchanged(config.unchanged, rng))
        size = self.model.at_once(len(examples), self.each)
        questions = sum(len(one.kept) for one in practised)
        for start in range(0, len(examples), size):
            yield self._loss(practised[start: start + size], len(examples), questions)

    def _loss(self, practised: Sequence[_Practised], examples: int, questions: int) -> Tensor:
        """The share of these in the loss of a batch of so many examples with so many questions that should stay."""
        config, requests = self.config, [one.request for one in practised]
        updates = self.module(self.factors(requests), requests)
        kept = [(number, row) for number, one in enumerate(practised) for row in one.kept]
        edits = [*range(len(practised)), *(number for number, _ in kept)]
        batch, hidden = self.part_runs.batch([*(one.asked for one in practised), *(row for _, row in kept)])
        with updated(self.model, updates, torch.tensor(edits, device=self.model.device)):
            states = self.part_runs.run_from(hidden, batch)
        logits = self.model.head(states[batch.row, batch.position])
        # -log p_edited(o_t | asked, o_<t)
        own = batch.row < len(practised)
        nll = nn.functional.cross_entropy(logits[own], batch.target[own], reduction="none")
        loss = config.edit_weight * (_sum_of_means(nll, batch.row[own]) / examples)
        if not kept:
            return loss
        # KL(p ‖ p_edited) at every answer token of the questions that should stay
        kl = nn.functional.kl_div(logits[~own].log_softmax(-1), self.part_runs.log_probs([row for _, row in kept]),
                                  reduction="none", log_target=True).sum(-1)
        return loss + config.locality_weight * (_sum_of_means(kl, batch.row[~own]) / questions)

    def _encode(self, prompt: str, target: str) -> Encoded:
        return self.model.encode(prompt, target, end=True)


def _learned(network: Hypernetwork) -> dict[str, Tensor]:
    """A network's weights and statistics as artefacts hold them."""
    return {name: tensor.half() if name.endswith(network.in_half) else tensor
            for name, tensor in network.state_dict().items()}


def _sum_of_means(values: Tensor, row: Tensor) -> Tensor:
    """The sum over rows of each row's mean."""
    return (values / torch.bincount(row)[row]).sum()


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
    def network_numbers(cls, config: H, of: Shape) -> float:
        """How many numbers the network has, for a model of this shape."""

    @classmethod
    def needs(cls, config: H, of: Bytes, facts: int = 1) -> Needs:
        return replace(cls._needs(config, of, PROMPT, ANSWER, facts),
                       held=SINGLE * cls.network_numbers(config, of.shape))

    @classmethod
    def training_needs(cls, config: H, of: Bytes) -> Needs:
        # an edit, and the questions about it, which see it through the network
        network, practised = SINGLE * cls.network_numbers(config, of.shape), 1 + config.unchanged
        edit = cls._needs(config, of, PROMPT, ANSWER).edit
        return Needs(held=(ADAM + BEST) * network + config.cache_bytes, edit=(1 + practised) * edit,
                     at_once=config.batch_size)

    @classmethod
    def _needs(cls, config: H, of: Bytes, tokens: float, targets: float, facts: int = 1) -> Needs:
        """With rows of so many tokens and target tokens."""
        # the decoder's blocks from the FFN of the lowest edited one on; behind an edited encoder all
        run = of.shape.depth - (0.0 if config.encoder_layers else min(config.layers) + 0.5)
        # the last block's FFN has a gradient at target tokens alone
        last = sum(layer == of.shape.depth - 1 for layer in set(config.layers))
        ranks = (config.matrices - 2 * last) * tokens + 2 * last * targets
        factors = SINGLE * ranks * (of.shape.width + of.shape.inner)
        return Needs(edit=tokens * of.kept(run) + FACTORS * factors + targets * of.logits,
                     at_once=config.edits_at_once, each=facts * factors)

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
    def in_parts(cls, model: LanguageModel, config: H, requests: Sequence[EditRequest]) -> Iterator[list[EditRequest]]:
        """The requests in their order, as many in a part as there is room for at once."""
        size = cls._together(model, config, [model.encode(r.prompt, r.target, end=True) for r in requests])
        return (list(requests[start: start + size]) for start in range(0, len(requests), size))

    @classmethod
    def _together(cls, model: LanguageModel, config: H, rows: Sequence[Encoded]) -> int:
        """How many of these there is room for at once."""
        needs = cls._needs(config, model.bytes, max(map(len, rows), default=0),
                           max((len(row.target) for row in rows), default=0))
        return model.at_once(needs.at_once, needs.edit)

    @classmethod
    def train(cls, model: LanguageModel, config: H, examples: Sequence[Example], *, seed: int = 0,
              checkpoint: Checkpoint | None = None, on_step: OnStep | None = None) -> Artefact:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = cls.build(model, config).to(model.device)
        requests = [request for part in cls.in_parts(model, config, [example.request for example in examples])
                    for request in cls.complete(model, config, part)]
        examples = [replace(example, request=request) for example, request in zip(examples, requests, strict=True)]
        trainee = HyperTrainee(model, config, network, cls.training_needs(config, model.bytes).edit)
        cls.begin(trainee, examples, seed)
        report = fit(trainee, examples, config, seed=seed, checkpoint=checkpoint, on_step=on_step)
        return Artefact(cls.name, cls.training_version, cls.training_settings(config), model.digest, _learned(network),
                        report)

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
        made: dict[int, Patch] = {}
        rows = [self.model.encode(request.prompt, request.target, end=True) for request in requests]
        for numbers in self._alike(rows):
            part = self.complete(self.model, self._trained_config, [requests[number] for number in numbers])
            batch = self.model.collate([rows[number] for number in numbers])
            factors = read_factors(self.model, matrices(self.model, self._trained_config), batch, self.model.states,
                                   total)
            made |= zip(numbers, patches(self._network(factors, part), {"editor": self.name}), strict=True)
        return [made[number] for number in range(len(requests))]

    def _alike(self, rows: Sequence[Encoded]) -> Iterator[list[int]]:
        """Numbers of rows of about one length, as many as there is room for at once."""
        model, size = self.model, self._together(self.model, self.config, rows)
        sizes = [model.length(row) for row in rows]
        whole = max(sizes, default=0) * len(sizes)
        for numbers in by_length(sizes, whole, PASS.get(model.device.type, math.inf)):
            yield from (numbers[start: start + size] for start in range(0, len(numbers), size))
