"""MEMIT: many facts at once, written into several down-projections (Meng et al. 2023, section 4, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from torch import Tensor

from editors.core.editor import Editor, Resources
from editors.core.errors import InputError
from editors.core.memory import DOUBLE, FACTORING, SINGLE, SPARE, Bytes, Needs
from editors.core.methods.contexts import sample_contexts
from editors.core.methods.value_rows import in_context
from editors.core.methods.values import ValueConfig, optimise_values
from editors.core.models.architectures import Shape, architecture
from editors.core.models.batches import Batch, BlockRef, Encoded, by_length
from editors.core.models.capture import pass_block
from editors.core.models.kept import Passed
from editors.core.models.model import LanguageModel
from editors.core.models.statistics import KeySolver
from editors.core.patches.overlay import leaving, overlay
from editors.core.patches.patch import Dense, LowRank, Patch, Term
from editors.core.requests import EditRequest


class MemitConfig(ValueConfig):
    """The value's settings, and how it is spread over layers."""

    layers: tuple[int, ...] = Field(min_length=1)
    """Blocks whose down-projections are edited, counted from 0 and in this order; at the last and highest the value is
    sought. Meng et al. 2023, published configuration: 3 to 8 in GPT-J."""

    steps: PositiveInt = 25
    """Evaluations of the loss; the last moves nothing. Meng et al. 2023, published configuration."""

    clamp: PositiveFloat = 0.75
    """Most that the value may change, as a multiple of the anchor's norm: the last layer's output for the bare prompt.
    Meng et al. 2023, published configuration."""

    contexts: tuple[tuple[PositiveInt, PositiveInt], ...] = ((10, 5),)
    """Texts sampled from the model, before which the edit should hold too, as pairs of length in tokens and number; the
    bare prompt always counts. Meng et al. 2023, published code."""

    context_starts: tuple[str, ...] = ("The", "Therefore", "Because", "I", "You")
    """Words that the contexts begin with, in turn; without any, they begin with the end-of-text token, as ROME's. Meng
    et al. 2023, published code."""

    moment_weight: PositiveFloat = 15000.0
    """The weight λ of the second moment: how many keys of ordinary text the edits are held against. Meng et al. 2023,
    Eq. 15 and published configuration."""

    @field_validator("layers")
    @classmethod
    def _last_is_highest(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(layers)) < len(layers) or layers[-1] != max(layers):
            raise ValueError("layers must differ, and the last must be the highest: what the others write has to "
                             "reach it")
        return layers

    @property
    def edited_layers(self) -> tuple[int, ...]:
        return self.layers


@dataclass
class _Group:
    """Requests whose prompts are run together: their numbers, the rows of all contexts, each up to its subject, the
    patch that each row carries, and how they passed the layer before, where that is kept."""

    numbers: list[int]
    batch: Batch
    carried: list[int]
    passed: Passed | None = None


class MEMIT(Editor[MemitConfig]):
    """Finds each fact's value at the last layer, then spreads the changes over all layers."""

    name = "memit"
    version = 6
    Config = MemitConfig
    joint = True
    apart = True
    decoder_only = True

    def __init__(self, model: LanguageModel, config: MemitConfig, resources: Resources | None = None,
                 seed: int = 0) -> None:
        super().__init__(model, config, resources, seed)
        self.check(config, model.module.config)
        # What the value is sought for: a block's output, or, where that takes it normalised, what its FFN writes.
        self.site = (model.down_path if model.layout("decoder").after else model.block_path)(config.layers[-1])
        # Now, of the model as it is given, not when the first edit is made: other edits may be on it then.
        self.contexts = sample_contexts(model, config.contexts, seed, config.context_starts)

    @classmethod
    def cost(cls, config: MemitConfig, shape: Shape) -> float:
        return config.cost(shape)

    @classmethod
    def needs(cls, config: MemitConfig, of: Bytes, facts: int = 1) -> Needs:
        width, inner = of.shape.width, of.shape.inner
        # ΔW of every layer; of one layer at a time K, S and what solving takes, and Z, H and R; and I + Kᵀ S
        patch = SINGLE * len(config.layers) * min(facts * (width + inner), of.matrix)
        work = DOUBLE * (facts * (4 * inner + 3 * width) + 3 * facts**2)
        return replace(config.needs(of, config.layers[-1]), held=of.moment, spare=(len(config.layers) - 1) * of.moment,
                       loading=FACTORING * of.moment, each=patch + work)

    @classmethod
    def check(cls, config: MemitConfig, model_config: Any) -> None:
        family, kind = architecture(model_config, model_config.name_or_path), model_config.model_type
        if len(config.layers) > 1 and family.layouts["decoder"].after:
            raise InputError(f"memit cannot spread a value over layers {list(config.layers)}: a {kind} normalises what "
                             "each of its FFNs writes: shares of it do not add up. Name one layer, or take rome")

    @classmethod
    def statistics_layers(cls, config: MemitConfig) -> tuple[int, ...]:
        return config.layers

    @cached_property
    def _solvers(self) -> dict[int, KeySolver]:
        solvers: dict[int, KeySolver] = {}
        for layer in self.config.layers:
            path = self.model.down_path(layer)
            if path not in self.resources.statistics:
                raise InputError(f"memit needs the second moment of '{path}'; compute it with `second_moments`")
            solvers[layer] = KeySolver(self.resources.statistics[path].to(self.model.device))
            if not self._factors_fit(solvers[layer]):
                solvers[layer].put(torch.device("cpu"))  # one at a time comes back, to solve with
        return solvers

    def _factors_fit(self, solver: KeySolver) -> bool:
        """Whether all others may stay on its device, too."""
        device = solver.factor.device
        if device.type != "cuda":
            return True
        total = torch.cuda.get_device_properties(device).total_memory
        return bool((len(self.config.layers) - 1) * solver.factor.nbytes <= SPARE * total)

    @property
    def provenance(self) -> dict[str, Any]:
        """The contexts that were sampled, and the ridges that the second moments were solved with."""
        return {"contexts": self.contexts,
                "ridge": {self.model.down_path(layer): solver.ridge for layer, solver in self._solvers.items()}}

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        return self._write([[request] for request in requests]) if requests else []

    def edit(self, requests: Sequence[EditRequest]) -> Patch:
        return self._write([requests])[0] if requests else Patch()

    def _write(self, groups: Sequence[Sequence[EditRequest]]) -> list[Patch]:
        """One patch per group of requests. The groups share forward passes and solves, and do not feel each other."""
        solvers = self._solvers  # where a moment is missing, that shows before the values are sought
        requests = [request for group in groups for request in group]
        owner = [number for number, group in enumerate(groups) for _ in group]
        spans = [slice(*ends) for ends in pairwise([0, *torch.tensor([*map(len, groups)]).cumsum(0).tolist()])]
        targets, losses = self._targets(requests)
        patches = [Patch(info={"editor": "memit", "edits": len(group), "loss": float(losses[span].mean())})
                   for group, span in zip(groups, spans, strict=True)]
        rows = self._groups(requests, owner)
        keep = self._room(rows)
        for place, layer in enumerate(self.config.layers):
            # K and h_L on the model as it stands with the changes of the layers below
            keys, states = self._look(rows, patches, layer, keep and layer != self.config.layers[-1])
            # R = (Z - h_L) / (layers that are left) (Eq. 20)
            residual = (targets - states) / (len(self.config.layers) - place)
            # S = (λC)⁻¹ K, of all groups at once (Eq. 15)
            spread = solvers[layer].solve(keys.T) / self.config.moment_weight
            for number, span in enumerate(spans):
                # ΔW = R [(λC + K Kᵀ)⁻¹ K]ᵀ, of each group by itself (Eq. 14)
                directions = _directions(keys[span].T, spread[:, span])
                term = _change(self.model.down_path(layer), residual[span].T.float(), directions.float())
                patches[number] = patches[number] + Patch((term,))
        return patches

    def seek(self, requests: Sequence[EditRequest]) -> Tensor:
        """[requests, width + 1]: what the last layer's block should output at each subject, z = h_L + δ (Eq. 16), and
        the loss. Where a family normalises what an FFN writes, h_L is what it writes."""
        found = torch.empty(len(requests), self.model.width + 1, dtype=torch.float64, device=self.model.device)
        for numbers, values in optimise_values(self.model, requests, self.config.layers[-1], self.contexts, self.config,
                                               anchor=self.site):
            found[numbers] = torch.cat([values.anchor + values.delta, values.loss[:, None]], 1).double()
        return found

    def _targets(self, requests: Sequence[EditRequest]) -> tuple[Tensor, Tensor]:
        """z [requests, width] and losses [requests], as they were sought before, or are sought now."""
        missing = [request for request in requests if request not in self.sought]
        found = {**self.sought, **dict(zip(missing, self.seek(missing), strict=True))} if missing else self.sought
        rows = torch.stack([found[request].to(self.model.device) for request in requests])
        return rows[:, :-1], rows[:, -1]

    def _rows(self, request: EditRequest) -> list[Encoded]:
        """The prompt in every context up to the subject's last token; what follows it changes nothing there."""
        within = [in_context(request, context) for context in self.contexts]
        return [Encoded(self.model.encode(each.prompt).prompt[: self.model.subject_index(each) + 1], ())
                for each in within]

    def _groups(self, requests: Sequence[EditRequest], owner: Sequence[int]) -> list[_Group]:
        """Requests whose rows are run together, as many as there is room for."""
        rows, count = [self._rows(request) for request in requests], len(self.contexts)
        budget = self.model.at_once(self.config.batch_tokens, self.model.bytes.passing)
        return [_Group(numbers, self.model.collate([row for number in numbers for row in rows[number]]),
                       [owner[number] for number in numbers for _ in range(count)])
                for numbers in by_length([max(map(len, row)) * count for row in rows], budget)]

    def _room(self, groups: Sequence[_Group]) -> bool:
        """Whether it can be kept how all groups passed a layer, so that the next begins there: in a quarter of what is
        free."""
        if self.config.layers != tuple(sorted(self.config.layers)):  # then the next may be below
            return False
        of, tokens = self.model.bytes, sum(group.batch.input_ids.numel() for group in groups)
        return self.model.at_once(tokens, 4 * of.size * (of.shape.inner + of.shape.width)) == tokens

    @torch.no_grad()
    def _look(self, groups: Sequence[_Group], patches: Sequence[Patch], layer: int,
              keep: bool) -> tuple[Tensor, Tensor]:
        """With the patches so far on: the key of every request at `layer` [requests, inner], a mean over contexts in
        which the bare prompt counts half (Eq. 19), and the last layer's output for that prompt [requests, width]."""
        count, total = len(self.contexts), sum(len(group.numbers) for group in groups)
        weights = torch.full((count,), 0.5 / max(count - 1, 1), dtype=torch.float64, device=self.model.device)
        weights[0] = 0.5 if count > 1 else 1.0
        width, inner = self.model.matrix(self.model.down_path(layer))
        keys, states = weights.new_empty(total, inner), weights.new_empty(total, width)
        for group in groups:
            passed, written = self._pass(group, patches, layer)
            group.passed = passed if keep else None
            rows = torch.arange(len(group.carried), device=weights.device)
            last = group.batch.attention_mask.sum(1) - 1
            keys[group.numbers] = torch.einsum(
                "ncm,c->nm", passed.read[rows, last].double().unflatten(0, (-1, count)), weights)
            states[group.numbers] = written[rows[: len(written)], last[::count]].double()
        return keys, states

    def _pass(self, group: _Group, patches: Sequence[Patch], layer: int) -> tuple[Passed, Tensor]:
        """How a group passes `layer`, and what its bare prompts have at the last one [requests, length, width]. Only
        these are run on to there, and nothing again up to where the layer before was passed."""
        model, batch, before, count = self.model, group.batch, group.passed, len(self.contexts)
        above, end = BlockRef("decoder", layer + 1), BlockRef("decoder", self.config.layers[-1] + 1)

        def run() -> Tensor:
            if before is None:
                return model.run_to(batch, above)
            start = model.block_of(before.path)
            assert start is not None
            hidden = leaving(model, before, patches, group.carried)
            return model.run_between(hidden, batch, BlockRef("decoder", start.layer + 1), above)

        with overlay(model, patches, group.carried):
            passed = pass_block(model, model.down_path(layer), run)
        if passed.written is not None:
            return passed, passed.written[::count]
        bare = torch.arange(0, len(group.carried), count, device=model.device)
        short = batch.select(bare).trimmed()
        with overlay(model, patches, group.carried[::count]):
            return passed, model.run_between(passed.hidden[bare, : short.input_ids.shape[1]], short, above, end)


def _directions(keys: Tensor, spread: Tensor) -> Tensor:
    """(λC + K Kᵀ)⁻¹ K [inner, n] (Eq. 14) for keys K and S = (λC)⁻¹ K, both [inner, n]; by Woodbury, of size n."""
    # I + Kᵀ S
    inner = keys.T @ spread
    inner.diagonal().add_(1.0)
    # S (I + Kᵀ S)⁻¹
    solved: Tensor = torch.linalg.solve(inner, spread, left=False)
    return solved


def _change(path: str, residual: Tensor, directions: Tensor) -> Term:
    """ΔW = R Dᵀ for R [out, n] and directions D [inner, n], in whichever form is smaller."""
    (out, facts), inner = residual.shape, len(directions)
    if facts * (out + inner) > out * inner:
        return Dense(path, residual @ directions.T)
    return LowRank(path, residual.contiguous(), directions.contiguous())
