"""Trains T-Patcher's neurons, for many edits side by side (Huang et al. 2023, section 3; METHODS section 4).

Nothing after the last FFN mixes positions, so everything is cached: the FFN's input `q` and the last block's output `r`
at every target position. Training touches only the new neurons, the last norm, and the head at those positions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.editor import EditorConfig
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Neurons, Patch, activation_function
from editors.core.requests import EditRequest


class NeuronConfig(EditorConfig):
    """`memory_weight` and `activation_weight` are the paper's l_m and l_a over cross-entropy with `label_smoothing`;
    both losses look at the largest `top_memories` and `top_activations` alone, with `margins` (published code: 3 and
    -3, which its sequence-to-sequence path forgets to pass on, so 0 and 0 are what was measured). A value starts as
    `amplify` times a normal draw. From step `check_from`, every `check_every` steps, an edit whose target is right
    ends as soon as the memory loss on held-out queries stops improving by `improvement`. `plateau` is (factor,
    patience in checks, threshold) of the learning rate's decay.
    """

    max_neurons: PositiveInt = 5
    steps: PositiveInt = 2000
    lr: PositiveFloat = 1e-2
    weight_decay: float = Field(0.01, ge=0)
    clip: PositiveFloat = 5.0
    check_every: PositiveInt = 25
    check_from: PositiveInt = 100
    patience: PositiveInt = 1
    improvement: float = 1e-3
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    activation_weight: float = Field(1.0, ge=0)
    memory_weight: float = Field(10.0, ge=0)
    top_activations: PositiveInt = 5
    top_memories: PositiveInt = 1000
    margins: tuple[float, float] = (0.0, 0.0)
    amplify: float = 10.0
    plateau: tuple[float, int, float] = (0.5, 1, 0.05)


@dataclass(frozen=True)
class Positions:
    """Target positions of several edits: FFN inputs `q` and last block's outputs `r` [n, width], the `target` tokens
    [n] and each position's `edit` number [n]."""

    q: Tensor
    r: Tensor
    target: Tensor
    edit: Tensor

    def of(self, edits: Tensor) -> Positions:
        """The positions of these edits, numbered anew."""
        place = torch.full((int(self.edit.max()) + 1,), -1, device=self.edit.device)
        place[edits] = torch.arange(len(edits), device=edits.device)
        kept = place[self.edit] >= 0
        return Positions(self.q[kept], self.r[kept], self.target[kept], place[self.edit][kept])


class NeuronTraining:
    """Keys and values of all edits, trained in one loop: each edit has its own clipping, learning rate and end,
    so that it ends where it would have ended alone."""

    def __init__(self, model: LanguageModel, config: NeuronConfig, positions: Positions,
                 requests: Sequence[EditRequest], seed: int) -> None:
        self.model, self.config, self.positions, self.seed = model, config, positions, seed
        self.edits = len(requests)
        self.activation = "relu" if model.gated else model.activation
        self._start(requests)
        device = positions.q.device
        self.steps = torch.zeros(self.edits, dtype=torch.long, device=device)
        self.right = self.count == 0
        self.rate = torch.ones(self.edits, device=device)

    @torch.no_grad()
    def _start(self, requests: Sequence[EditRequest]) -> None:
        """A key that answers its own query with 1, and a random value, per wrong token (the first few)."""
        positions, most, width = self.positions, self.config.max_neurons, self.positions.q.shape[1]
        wrong = self._logits(positions, None).argmax(-1) != positions.target
        self.query = positions.q.new_zeros(self.edits, most, width)
        values = torch.zeros_like(self.query)
        counts = []
        for edit, request in enumerate(requests):
            found = (wrong & (positions.edit == edit)).nonzero().flatten()[:most]
            counts.append(len(found))
            self.query[edit, : len(found)] = positions.q[found]
            values[edit] = torch.randn(most, width, generator=_generator(self.seed, request)).to(values.device)
        self.count = torch.tensor(counts, device=values.device)
        self.real = torch.arange(most, device=values.device)[None] < self.count[:, None]
        norms = self.query.square().sum(-1, keepdim=True).clamp(min=1e-12)
        self.keys = nn.Parameter(self.query / norms)
        self.bias = nn.Parameter(self.query.new_zeros(self.edits, most))
        self.direction = nn.Parameter(values)
        self.scale = nn.Parameter(torch.full_like(self.bias, self.config.amplify))

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [self.keys, self.bias, self.direction, self.scale]

    @property
    def values(self) -> Tensor:
        return self.direction * self.scale[..., None] * self.real[..., None]

    def _logits(self, positions: Positions, edits: Tensor | None) -> Tensor:
        """Logits at every position [n, vocabulary], with the neurons of `edits` (numbered as in `positions`) on."""
        hidden = positions.r
        if edits is not None:
            keys, bias, values = self.keys[edits], self.bias[edits], self.values[edits]
            own = positions.edit
            inputs = torch.einsum("nd,nkd->nk", positions.q, keys[own]) + bias[own]
            active = activation_function(self.activation)(inputs)
            hidden = hidden + torch.einsum("nk,nkd->nd", active, values[own])
        dtype = self.model.module.dtype
        return self.model.head(self.model.finish(hidden.to(dtype)))

    def losses(self, positions: Positions, edits: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Per edit [edits]: the whole loss and, alone, the unweighted memory loss."""
        config = self.config
        nll = nn.functional.cross_entropy(self._logits(positions, edits), positions.target, reduction="none",
                                          label_smoothing=config.label_smoothing)
        tokens = torch.bincount(positions.edit, minlength=len(edits))
        fit = nll.new_zeros(len(edits)).index_add(0, positions.edit, nll) / tokens
        own = torch.einsum("ekd,ekd->ek", self.query[edits], self.keys[edits]) + self.bias[edits]
        other = torch.einsum("md,ekd->ekm", memory, self.keys[edits]) + self.bias[edits][..., None]
        real = self.real[edits]
        activation = _top_mean((-own).exp(), real, config.top_activations)
        first, second = config.margins
        real_memory = real[..., None].expand_as(other).flatten(1)
        silent = (_top_mean((other - own[..., None] + first).exp().flatten(1), real_memory, config.top_memories)
                  + _top_mean((other - second).exp().flatten(1), real_memory, config.top_memories))
        return fit + config.activation_weight * activation + config.memory_weight * silent, silent

    def train(self, memory: Tensor, held_out: Tensor) -> None:
        """Against the memory's keys [keys, width]; the held-out ones decide when an edit ends."""
        config = self.config
        optimizer = torch.optim.Adam(self.parameters, lr=config.lr, weight_decay=config.weight_decay)
        active = (self.count > 0).nonzero().flatten()
        watch = _Watch(self.edits, config)
        for step in range(1, config.steps + 1):
            if not len(active):
                break
            positions = self.positions.of(active)
            optimizer.zero_grad()
            self.losses(positions, active, memory)[0].sum().backward()
            self._step(optimizer, active)
            self.steps[active] = step
            if step % config.check_every == 0:
                active = active[~self._check(step, positions, active, held_out, watch)]
        if len(active):  # the last steps may have come after the last check
            self.right[active] = self._answers(self.positions.of(active), active)

    @torch.no_grad()
    def _step(self, optimizer: torch.optim.Optimizer, active: Tensor) -> None:
        """Adam with a learning rate and a gradient norm of its own for every edit; the others do not move."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norms = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
        shrink = (self.config.clip / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(shrink.reshape(-1, *[1] * (gradient.ndim - 1)))
        before = [parameter.clone() for parameter in self.parameters]
        optimizer.step()
        rate = torch.zeros_like(self.rate)
        rate[active] = self.rate[active]
        for parameter, old in zip(self.parameters, before, strict=True):
            parameter.copy_(old + rate.reshape(-1, *[1] * (old.ndim - 1)) * (parameter - old))

    @torch.no_grad()
    def _check(self, step: int, positions: Positions, active: Tensor, held_out: Tensor, watch: _Watch) -> Tensor:
        """Which of the active edits end here; also lowers the learning rate of those on a plateau."""
        total, silent = self.losses(positions, active, held_out)
        self.right[active] = right = self._answers(positions, active)
        ends = torch.zeros_like(right)
        for place, edit in enumerate(active.tolist()):
            self.rate[edit] *= watch.decay(edit, float(total[place]))
            if right[place] and step >= self.config.check_from:
                ends[place] = watch.stalls(edit, float(silent[place]))
        return ends

    @torch.no_grad()
    def _answers(self, positions: Positions, active: Tensor) -> Tensor:
        """Which of the active edits [active] have all their tokens right."""
        wrong = (self._logits(positions, active).argmax(-1) != positions.target).float()
        return wrong.new_zeros(len(active)).index_add(0, positions.edit, wrong) == 0

    def patch(self, edit: int) -> Patch:
        count = int(self.count[edit])
        info = {"editor": "t-patcher", "neurons": count, "steps": int(self.steps[edit]),
                "right": bool(self.right[edit])}
        if not count:
            return Patch(info=info)
        path = self.model.ffn_path(self.model.depth - 1)
        return Patch((Neurons(path, self.keys[edit, :count].detach().clone(),
                              self.values[edit, :count].detach().T.contiguous(), self.activation,
                              self.bias[edit, :count].detach().clone()),), info)


class _Watch:
    """What each edit has reached at its checks."""

    def __init__(self, edits: int, config: NeuronConfig) -> None:
        self.config = config
        self.best_total, self.flat = [math.inf] * edits, [0] * edits
        self.best_memory, self.worse = [math.inf] * edits, [0] * edits

    def decay(self, edit: int, total: float) -> float:
        """The factor for the learning rate: below 1 when the loss has not fallen for long enough."""
        factor, patience, threshold = self.config.plateau
        if total < self.best_total[edit] * (1 - threshold):
            self.best_total[edit], self.flat[edit] = total, 0
            return 1.0
        self.flat[edit] += 1
        if self.flat[edit] <= patience:
            return 1.0
        self.flat[edit] = 0
        return factor

    def stalls(self, edit: int, memory: float) -> bool:
        """Whether the memory loss has stopped improving."""
        if memory < self.best_memory[edit] - self.config.improvement:
            self.best_memory[edit], self.worse[edit] = memory, 0
            return False
        self.worse[edit] += 1
        return self.worse[edit] >= self.config.patience


def _top_mean(values: Tensor, real: Tensor, most: int) -> Tensor:
    """Mean of the `most` largest real values of each row [rows]; of all where there are fewer."""
    top = values.masked_fill(~real, -math.inf).topk(min(most, values.shape[1]), dim=1).values
    kept = top > -math.inf
    return top.masked_fill(~kept, 0.0).sum(1) / kept.sum(1).clamp(min=1)


def _generator(seed: int, request: EditRequest) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {request.prompt} {request.target}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
