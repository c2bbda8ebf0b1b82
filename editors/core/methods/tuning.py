"""Trains small additions to a frozen model by gradient descent, many of them side by side (FT, CaliNET)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.editor import Editor, EditorConfig
from editors.core.memory import ADAM, ANSWER, PROMPT, SINGLE, STEP, Bytes, Needs
from editors.core.models.batches import Batch, BlockRef, alike
from editors.core.models.capture import pass_block
from editors.core.models.kept import Passed
from editors.core.models.sparing import Places, only_real, only_targets
from editors.core.patches.overlay import leaving, overlay
from editors.core.patches.patch import Patch
from editors.core.requests import EditRequest


class TuningConfig(EditorConfig):
    """What is trained, and for how long. Meng et al. 2022 fine-tune to compare; the values are theirs."""

    layers: tuple[int, ...] = Field(min_length=1)
    """Decoder blocks whose FFN gets the addition, counted from 0. Yao et al. 2023: block 21 (FT), the last two
    (CaliNET)."""

    steps: PositiveInt = 25
    """Passes over an edit's facts, at most. Meng et al. 2022, published configuration."""

    lr: PositiveFloat = 5e-4
    """The optimiser's learning rate. Meng et al. 2022, published configuration."""

    stop_loss: float = Field(1e-2, ge=0)
    """Mean loss of a pass, in nats a token, below which an edit is done. Meng et al. 2022, published code."""

    objective: Literal["prompt_last", "target_new"] = "prompt_last"
    """Where target tokens are read: `prompt_last` reads all of them at the prompt's last position (Meng et al. 2022,
    published code), `target_new` each where it is predicted, teacher-forced (EasyEdit, there called FT-M)."""

    batch_size: PositiveInt = 128
    """Facts of a joint edit in one update. Meng et al. 2022, published configuration."""

    edits_at_once: PositiveInt = 25
    """Most independent edits that share a forward pass, which are fewer where memory is short. Ours."""

    @property
    def edited_layers(self) -> tuple[int, ...]:
        return self.layers


C = TypeVar("C", bound=TuningConfig)


class Delta(ABC):
    """The addition being trained for one group of requests, and the loss and number of its last pass."""

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
        """The addition as a patch that is no longer trained."""
        return Patch(tuple(term.detach() for term in self.patch().terms),
                     {"editor": editor, "loss": self.loss, "steps": self.steps})


@dataclass(frozen=True)
class _MiniBatch:
    """Rows of several groups, each row's `group` [rows], where targets are predicted, and the lowest edited block,
    which is `passed` once with those below it."""

    batch: Batch
    passed: Passed
    group: Tensor
    places: Places

    def of_groups(self, active: Sequence[int]) -> _MiniBatch:
        return self._of(torch.isin(self.group, torch.tensor(active, device=self.group.device)).nonzero().flatten())

    def in_parts(self, size: int) -> list[_MiniBatch]:
        """Of so many rows each."""
        rows = torch.arange(len(self.group), device=self.group.device)
        return [self] if len(rows) <= size else [self._of(part) for part in rows.split(size)]

    def _of(self, rows: Tensor) -> _MiniBatch:
        batch = self.batch.select(rows)
        return _MiniBatch(batch, self.passed[rows], self.group[rows], Places.of(batch))


class Tuner(Editor[C]):
    """An editor that trains a `Delta` per group of requests, from what leaves the lowest edited block."""

    joint = True

    @classmethod
    @abstractmethod
    def parameter_bytes(cls, config: C, of: Bytes) -> float:
        """Of the parameters of one delta."""

    @classmethod
    def tensors(cls, config: C) -> float:
        """As large as these, as long as they are trained, themselves among them."""
        return ADAM

    @classmethod
    def needs(cls, config: C, of: Bytes, facts: int = 1) -> Needs:
        return cls._needs(config, of, PROMPT, ANSWER, facts)

    @classmethod
    def _needs(cls, config: C, of: Bytes, tokens: float, targets: float, facts: int = 1) -> Needs:
        """With rows of so many tokens and target tokens."""
        size = cls.parameter_bytes(config, of)
        rows = min(facts, config.batch_size) * cls._row(config, of, tokens, targets)
        tensors = cls.tensors(config)
        return Needs(edit=max(tensors * size, (tensors - STEP) * size + rows), at_once=config.edits_at_once, each=size)

    @classmethod
    def _row(cls, config: C, of: Bytes, tokens: float, targets: float) -> float:
        """Of a fact's row."""
        above = of.shape.depth - min(config.layers) - 1
        # what a delta computes with is in fp32: neurons, the inputs of W_out, and what leaves the lowest edited block,
        # and its FFN
        read = SINGLE * (len(config.layers) * (of.shape.inner + of.shape.width) + 2 * of.shape.width)
        return tokens * (of.kept(above) + read) + targets * of.logits

    @abstractmethod
    def edited(self, layer: int) -> str:
        """The path of the module in a block that gets the addition: the FFN, or its last projection."""

    @abstractmethod
    def new_delta(self, requests: Sequence[EditRequest]) -> Delta:
        """What is trained for these requests together."""

    def new_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """One that treats every parameter by itself, so that edits do not feel each other."""
        return torch.optim.Adam(parameters, lr=self.config.lr, fused=True)

    @property
    def _lowest(self) -> int:
        return min(self.config.layers)

    @property
    def _above(self) -> BlockRef:
        return BlockRef("decoder", self._lowest + 1)

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        end = self.config.objective == "target_new"
        rows = [self.model.encode(request.prompt, request.target, end=end) for request in requests]
        sizes = [self.model.length(row) for row in rows]
        patches: dict[int, Patch] = {}
        needs = self._needs(self.config, self.model.bytes, max(sizes, default=0),
                            max((len(row.target) for row in rows), default=0))
        for numbers in alike(sizes, self.model.at_once(needs.at_once, needs.edit)):
            patches |= zip(numbers, self._train([[requests[number]] for number in numbers]), strict=True)
        return [patches[number] for number in range(len(requests))]

    def edit(self, requests: Sequence[EditRequest]) -> Patch:
        return self._train([list(requests)])[0] if requests else Patch()

    def _train(self, groups: Sequence[Sequence[EditRequest]]) -> list[Patch]:
        """One delta per group of requests, each trained in mini-batches of its own requests."""
        deltas = [self.new_delta(group) for group in groups]
        optimizer = self.new_optimizer([parameter for delta in deltas for parameter in delta.parameters])
        size = self.config.batch_size
        mini_batches = [self._mini_batch([group[start: start + size] for group in groups])
                        for start in range(0, max(map(len, groups)), size)]
        # of groups of one fact each there are as many as there is room for
        rows = len(groups) if max(map(len, groups)) == 1 else min(map(self._rows_at_once, mini_batches))
        active = list(range(len(groups)))
        for _ in range(self.config.steps):
            losses = torch.stack([self._step(mini, rows, deltas, optimizer) for mini in mini_batches])
            means = losses.nanmean(0)  # of a group's mini-batches, as they were before their updates
            for group in active:
                deltas[group].loss = float(means[group])
                deltas[group].steps += 1
            still = [group for group in active if not means[group] < self.config.stop_loss]
            if not still:
                break
            if len(still) < len(active):
                active, mini_batches = still, [mini.of_groups(still) for mini in mini_batches]
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
        passed = pass_block(self.model, self.edited(self._lowest), lambda: self.model.run_to(batch, self._above))
        return _MiniBatch(batch, passed, group, Places.of(batch))

    def _rows_at_once(self, mini: _MiniBatch) -> int:
        rows, length = mini.batch.input_ids.shape
        return self.model.at_once(rows, self._row(self.config, self.model.bytes, length, len(mini.batch.target) / rows))

    def _step(self, mini: _MiniBatch, rows: int, deltas: Sequence[Delta], optimizer: torch.optim.Optimizer) -> Tensor:
        """One update of every group with rows here, so many of them at once; returns the loss of each group [groups],
        NaN where it has none."""
        losses = torch.full((len(deltas),), torch.nan)
        groups = mini.group.unique()
        if not len(groups):
            return losses
        optimizer.zero_grad(set_to_none=True)
        facts = torch.bincount(mini.group, minlength=len(deltas)).clamp(min=1)
        parts = mini.in_parts(rows)
        means = facts.new_zeros(len(deltas), dtype=torch.float)
        for part in parts:
            by_group = self._sums(part, deltas) / facts
            means += by_group.detach()
            if len(parts) > 1:  # what it keeps for its gradient goes before the next
                by_group.sum().backward()
        # The published code makes no update where the loss is low enough.
        learning = groups[means[groups] >= self.config.stop_loss]
        losses[groups.cpu()] = means[groups].cpu()
        if len(learning):
            if len(parts) == 1:
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

    def _sums(self, mini: _MiniBatch, deltas: Sequence[Delta]) -> Tensor:
        """Σ_i -1/T_i Σ_t log p(o_it) of each group [groups], over its facts here and the T_i target tokens of each."""
        model, patches, groups = self.model, [delta.patch() for delta in deltas], mini.group.tolist()
        hidden = leaving(model, mini.passed, patches, groups)
        with (overlay(model, patches, groups), only_real(model, mini.places, patches, self._above.layer),
              only_targets(model, mini.places)):
            states = model.run_from(hidden, mini.batch, self._above)
        by_fact = _mean_by(model.target_nll(states, mini.batch), mini.batch.row, len(mini.group))
        return by_fact.new_zeros(len(deltas)).index_add(0, mini.group, by_fact)


def _mean_by(values: Tensor, index: Tensor, groups: int) -> Tensor:
    """Mean of `values` [n] per group number in `index` [n]; 0 for an empty group."""
    sums = values.new_zeros(groups).index_add(0, index, values)
    return sums / torch.bincount(index, minlength=groups).clamp(min=1)
