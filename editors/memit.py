"""MEMIT: many facts at once, written into several down-projections (Meng et al. 2023, section 4; METHODS section 9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from editors.base import Editor, EditorConfig
from editors.core.batches import Encoded, Place
from editors.core.capture import capture_inputs, capture_outputs
from editors.core.contexts import sample_contexts
from editors.core.errors import InputError
from editors.core.overlay import overlay
from editors.core.patch import Dense, LowRank, Patch, Term
from editors.core.requests import EditRequest
from editors.core.statistics import KeySolver
from editors.core.values import ValueConfig, optimise_values


class MemitConfig(ValueConfig):
    """`layers` are written in this order, and the last is where the value is sought; `moment_weight` is the weight
    lambda of the second moment: how many keys of ordinary text the edits are held against."""

    layers: tuple[int, ...] = Field(min_length=1)
    steps: PositiveInt = 25
    clamp: PositiveFloat = 0.75
    contexts: tuple[tuple[PositiveInt, PositiveInt], ...] = ((10, 5),)
    moment_weight: PositiveFloat = 15000.0

    @property
    def edited_layers(self) -> tuple[int, ...]:
        return self.layers


class MEMIT(Editor):
    """Finds each fact's value at the last layer, then spreads the changes over all layers."""

    name = "memit"
    version = 1
    Config = MemitConfig
    config: MemitConfig
    joint = True
    decoder_only = True

    @classmethod
    def statistics_layers(cls, config: EditorConfig) -> tuple[int, ...]:
        assert isinstance(config, MemitConfig)
        return config.layers

    @cached_property
    def contexts(self) -> list[str]:
        return sample_contexts(self.model, self.config.contexts, self.seed)

    @cached_property
    def _solvers(self) -> dict[int, KeySolver]:
        solvers = {}
        for layer in self.config.layers:
            path = self.model.down_path(layer)
            if path not in self.resources.statistics:
                raise InputError(f"memit needs the second moment of '{path}'; compute it with `second_moments`")
            solvers[layer] = KeySolver(self.resources.statistics[path].to(self.model.device))
        return solvers

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        return self._write(requests, list(range(len(requests))))

    def edit(self, requests: Sequence[EditRequest]) -> Patch:
        return self._write(requests, [0] * len(requests))[0] if requests else Patch()

    def _write(self, requests: Sequence[EditRequest], owner: Sequence[int]) -> list[Patch]:
        """One patch per owner number; request i belongs to patch `owner[i]`."""
        if not requests:
            return []
        targets, losses = self._targets(requests)
        owners = torch.tensor(owner, device=targets.device)
        patches = [Patch(info={"editor": "memit", "edits": int((owners == number).sum()),
                               "loss": float(losses[owners == number].mean())}) for number in range(max(owner) + 1)]
        rows = [self._rows(request) for request in requests]
        for place, layer in enumerate(self.config.layers):
            keys, states = self._look(rows, patches, owner, layer)
            residual = (targets - states) / (len(self.config.layers) - place)
            for number in range(len(patches)):
                mine = owners == number
                directions = self._directions(layer, keys[mine].T)
                term = _change(self.model.down_path(layer), residual[mine].T.float(), directions.float())
                patches[number] = patches[number] + Patch((term,))
        return patches

    def _directions(self, layer: int, keys: Tensor) -> Tensor:
        """`(lambda C + K Kᵀ)⁻¹ K` [inner, n] for keys K [inner, n] (Eq. 14), by Woodbury: an n x n system."""
        spread = self._solvers[layer].solve(keys) / self.config.moment_weight
        inner = keys.to(spread).T @ spread
        inner.diagonal().add_(1.0)
        solved: Tensor = torch.linalg.solve(inner, spread, left=False)
        return solved

    def _targets(self, requests: Sequence[EditRequest]) -> tuple[Tensor, Tensor]:
        """What the last layer's block should output at each subject [requests, width], and the losses."""
        layer = self.config.layers[-1]
        targets: dict[int, Tensor] = {}
        losses: dict[int, Tensor] = {}
        for numbers, values in optimise_values(self.model, requests, layer, self.contexts, self.config,
                                               anchor=self.model.block_path(layer)):
            for place, number in enumerate(numbers):
                targets[number] = values.anchor[place] + values.delta[place]
                losses[number] = values.loss[place]
        order = range(len(requests))
        return torch.stack([targets[n] for n in order]).double(), torch.stack([losses[n] for n in order])

    def _rows(self, request: EditRequest) -> list[Encoded]:
        """The prompt in every context up to the subject's last token; what follows it changes nothing there."""
        assert request.subject_start is not None
        rows = []
        for context in self.contexts:
            within = replace(request, prompt=context + request.prompt,
                             subject_start=len(context) + request.subject_start)
            rows.append(Encoded(self.model.encode(within.prompt).prompt[: self.model.subject_index(within) + 1], ()))
        return rows

    @torch.no_grad()
    def _look(self, rows: Sequence[Sequence[Encoded]], patches: Sequence[Patch], owner: Sequence[int],
              layer: int) -> tuple[Tensor, Tensor]:
        """With the patches so far on: the key of every request at `layer` [requests, inner], the mean over contexts in
        which the bare prompt counts half, and the last layer's output for the bare prompt [requests, width]."""
        down, block = self.model.down_path(layer), self.model.block_path(self.config.layers[-1])
        count = len(self.contexts)
        weights = torch.full((count,), 0.5 / max(count - 1, 1), dtype=torch.float64, device=self.model.device)
        weights[0] = 0.5 if count > 1 else 1.0
        keys: dict[int, Tensor] = {}
        states: dict[int, Tensor] = {}
        for numbers in self._chunks(rows):
            batch = self.model.collate([row for number in numbers for row in rows[number]])
            last = batch.attention_mask.sum(1) - 1
            at = torch.arange(len(last), device=last.device), last
            with (overlay(self.model, patches, [owner[number] for number in numbers for _ in range(count)]),
                  capture_inputs(self.model, [down]) as inputs, capture_outputs(self.model, [block]) as outputs):
                self.model.halt(batch, Place("decoder", max(self.config.layers) + 1))
            key = torch.einsum("ncm,c->nm", inputs[down][at].double().unflatten(0, (len(numbers), count)), weights)
            state = outputs[block][at].double()[::count]
            for place, number in enumerate(numbers):
                keys[number], states[number] = key[place], state[place]
        order = range(len(rows))
        return torch.stack([keys[n] for n in order]), torch.stack([states[n] for n in order])

    def _chunks(self, rows: Sequence[Sequence[Encoded]]) -> Iterator[list[int]]:
        """Request numbers of similar length, within `batch_tokens`."""
        chunk: list[int] = []
        for number in sorted(range(len(rows)), key=lambda number: max(map(len, rows[number]))):
            longest = max(map(len, rows[number])) * len(rows[number])
            if chunk and longest * (len(chunk) + 1) > self.config.batch_tokens:
                yield chunk
                chunk = []
            chunk.append(number)
        if chunk:
            yield chunk


def _change(path: str, residual: Tensor, directions: Tensor) -> Term:
    """`dW = R adjᵀ` for R [out, n] and adj [inner, n], in whichever form is smaller."""
    (out, facts), inner = residual.shape, len(directions)
    if facts * (out + inner) > out * inner:
        return Dense(path, residual @ directions.T)
    return LowRank(path, residual.contiguous(), directions)
