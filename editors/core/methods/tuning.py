"""Trains small additions to a frozen model by gradient descent, many of them side by side (FT, CaliNET)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.editor import Editor, EditorConfig
from editors.core.models.batches import Batch, BlockRef
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Patch
from editors.core.requests import EditRequest


class TuningConfig(EditorConfig):
    """`objective` says where target tokens are read: `prompt_last` reads all of them at the prompt's last position, as
    the ROME authors' code does; `target_new` is teacher-forced cross-entropy (often called FT-M). An edit is done when
    its loss falls below `stop_loss`; `edits_at_once` of them share a forward pass (memory)."""

    layers: tuple[int, ...] = Field(min_length=1)
    steps: PositiveInt = 25
    lr: PositiveFloat = 5e-4
    stop_loss: float = Field(1e-2, ge=0)
    objective: Literal["prompt_last", "target_new"] = "prompt_last"
    batch_size: PositiveInt = 128
    edits_at_once: PositiveInt = 25

    @property
    def edited_layers(self) -> tuple[int, ...]:
        return self.layers


C = TypeVar("C", bound=TuningConfig)


class Delta(ABC):
    """The addition being trained for one group of requests."""

    loss = float("inf")
    steps = 0

    @property
    @abstractmethod
    def parameters(self) -> list[nn.Parameter]: ...

    @abstractmethod
    def patch(self) -> Patch:
        """The addition as a patch whose tensors are the live parameters."""

    def constrain(self) -> None:  # noqa: B027 - most need nothing
        """Called after every step, without gradients."""

    def finished(self, editor: str) -> Patch:
        def still(value: Any) -> Any:
            return value.detach() if isinstance(value, Tensor) else value

        terms = tuple(type(term)(**{name: still(value) for name, value in vars(term).items()})
                      for term in self.patch().terms)
        return Patch(terms, {"editor": editor, "loss": self.loss, "steps": self.steps})


@dataclass(frozen=True)
class _MiniBatch:
    """Rows of several groups with the hidden states [rows, length, width] that enter the first edited block."""

    batch: Batch
    hidden: Tensor
    group: Tensor

    def of_groups(self, active: Sequence[int]) -> _MiniBatch:
        rows = torch.isin(self.group, torch.tensor(active, device=self.group.device)).nonzero().flatten()
        return _MiniBatch(self.batch.select(rows), self.hidden[rows], self.group[rows])


class Tuner(Editor[C]):
    """An editor that trains a `Delta` per group of requests, from what enters the lowest edited block."""

    joint = True

    @abstractmethod
    def new_delta(self, requests: Sequence[EditRequest]) -> Delta:
        """What is trained for these requests together."""

    def new_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """One that treats every parameter by itself, so that edits do not feel each other."""
        return torch.optim.Adam(parameters, lr=self.config.lr)

    @property
    def _first(self) -> BlockRef:
        return BlockRef("decoder", min(self.config.layers))

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        size = self.config.edits_at_once
        chunks = [requests[start: start + size] for start in range(0, len(requests), size)]
        return [patch for chunk in chunks for patch in self._train([[request] for request in chunk])]

    def edit(self, requests: Sequence[EditRequest]) -> Patch:
        return self._train([list(requests)])[0] if requests else Patch()

    def _train(self, groups: Sequence[Sequence[EditRequest]]) -> list[Patch]:
        """One delta per group of requests, each trained in mini-batches of its own requests."""
        deltas = [self.new_delta(group) for group in groups]
        optimizer = self.new_optimizer([parameter for delta in deltas for parameter in delta.parameters])
        size = self.config.batch_size
        mini_batches = [self._mini_batch([group[start: start + size] for group in groups])
                        for start in range(0, max(map(len, groups)), size)]
        active = list(range(len(groups)))
        for _ in range(self.config.steps):
            losses = torch.stack([self._step(mini.of_groups(active), deltas, optimizer) for mini in mini_batches])
            means = losses.nanmean(0)
            for group in active:
                deltas[group].loss = float(means[group])
                deltas[group].steps += 1
            active = [group for group in active if not means[group] < self.config.stop_loss]
            if not active:
                break
        return [delta.finished(self.name) for delta in deltas]

    @torch.no_grad()
    def _mini_batch(self, parts: Sequence[Sequence[EditRequest]]) -> _MiniBatch:
        end = self.config.objective == "target_new"
        rows = [(number, self.model.encode(request.prompt, request.target, end=end))
                for number, part in enumerate(parts) for request in part]
        batch = self.model.collate([encoded for _, encoded in rows])
        if self.config.objective == "prompt_last":
            batch = replace(batch, position=batch.first_position[batch.row])
        batch = self.model.read(batch)
        group = torch.tensor([number for number, _ in rows], device=batch.row.device)
        return _MiniBatch(batch, self.model.run_to(batch, self._first), group)

    def _step(self, mini: _MiniBatch, deltas: Sequence[Delta], optimizer: torch.optim.Optimizer) -> Tensor:
        """One update of every group with rows here; returns the loss of each group [groups], NaN where it has none."""
        losses = torch.full((len(deltas),), torch.nan)
        groups = mini.group.unique()
        if not len(groups):
            return losses
        with overlay(self.model, [delta.patch() for delta in deltas], mini.group.tolist()):
            states = self.model.run_from(mini.hidden, mini.batch, self._first)
        logits = self.model.head(states[mini.batch.row, mini.batch.position])
        nll = nn.functional.cross_entropy(logits, mini.batch.target, reduction="none")
        by_group = _mean_by(_mean_by(nll, mini.batch.row, len(mini.group)), mini.group, len(deltas))
        learning = groups[by_group.detach()[groups] >= self.config.stop_loss]
        losses[groups.cpu()] = by_group.detach()[groups].cpu()
        if len(learning):
            optimizer.zero_grad(set_to_none=True)
            by_group[learning].sum().backward()
            # A group left out of the sum still gets a zero gradient, which Adam's momentum would turn into a step.
            for number in set(range(len(deltas))) - set(learning.tolist()):
                for parameter in deltas[number].parameters:
                    parameter.grad = None
            optimizer.step()
            with torch.no_grad():
                for number in learning.tolist():
                    deltas[number].constrain()
        return losses


def _mean_by(values: Tensor, index: Tensor, groups: int) -> Tensor:
    """Mean of `values` [n] per group number in `index` [n]; 0 for an empty group."""
    sums = values.new_zeros(groups).index_add(0, index, values)
    return sums / torch.bincount(index, minlength=groups).clamp(min=1)
