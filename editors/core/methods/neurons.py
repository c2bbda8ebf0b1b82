"""Trains T-Patcher's neurons (Huang et al. 2023, section 3): many edits side by side, on what the last FFN reads."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.editor import EditorConfig
from editors.core.models.activations import activation_function
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Neurons, Patch
from editors.core.requests import EditRequest

CHUNK = 4096  # keys of the memory that are in fp32 at once
TIE = 1e-5  # by which a neuron is taken to fire more than the one before it


class NeuronConfig(EditorConfig):
    """How neurons are trained. The code that is named is the published one, set for zsRE."""

    max_neurons: PositiveInt = 5
    """Neurons of an edit at most: one for each of its first wrong tokens. Huang et al. 2023, code."""

    steps: PositiveInt = 2000
    """Updates at most. Huang et al. 2023, code."""

    lr: PositiveFloat = 1e-2
    """Adam's learning rate at the start. Huang et al. 2023, code."""

    weight_decay: float = Field(0.01, ge=0)
    """Share of each parameter that is added to its gradient. Huang et al. 2023, code."""

    clip: PositiveFloat = 5.0
    """Most that the norm of an edit's gradient may be. Huang et al. 2023, code."""

    plateau: tuple[float, int, float] = (0.5, 1, 0.05)
    """The learning rate's decay: factor, checks without progress, and the relative fall of the cross-entropy that is
    progress. Huang et al. 2023, code."""

    check_every: PositiveInt = 25
    """Steps between two checks on held-out questions. Huang et al. 2023, code."""

    check_from: PositiveInt = 100
    """Steps that every edit gets; at checks later than that one whose target is right may end. Huang et al. 2023,
    code."""

    patience: PositiveInt = 1
    """Checks without an improvement, after which an edit whose target is right ends. Huang et al. 2023, code."""

    improvement: float = 1e-3
    """By how much the memory loss on held-out questions must fall for an improvement. Huang et al. 2023, code."""

    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the target's probability that all other tokens get, in the cross-entropy. Huang et al. 2023, code."""

    activation_weight: float = Field(1.0, ge=0)
    """Weight of the loss L_a that has neurons fire at their own query. Huang et al. 2023, section 3 (l_a)."""

    memory_weight: float = Field(10.0, ge=0)
    """Weight of the loss L_m that has them silent on the memory (l_m). Huang et al. 2023, code; the paper has 5."""

    top_activations: PositiveInt = 5
    """How many of the largest terms L_a is the mean of, each there `copies` times. Huang et al. 2023, code."""

    top_memories: PositiveInt = 1000
    """How many of the largest terms each part of L_m is the mean of, each there `copies` times. Huang et al. 2023,
    code."""

    copies: PositiveInt = 8
    """Copies of the edit in a batch, all of which bring the same terms: of the 1,000 largest 125 are different, and of
    the five largest one. Huang et al. 2023, code; the paper has no copies, which is 1."""

    margins: tuple[float, float] = (0.0, 0.0)
    """Margins of L_m's two parts. Huang et al. 2023, code: 3 and -3, but not passed on for sequence-to-sequence."""

    amplify: float = 10.0
    """What a neuron's value starts as, times a normal draw. Huang et al. 2023, code."""

    remember: bool = True
    """Whether later edits of a stream should be silent where this one was made. Huang et al. 2023, code."""


@dataclass(frozen=True)
class Positions:
    """Target positions of several edits: FFN inputs `q`, what the FFN has `written` and the last block's outputs `r`,
    all [n, width], the `target` tokens [n] and each position's `edit` number [n]."""

    q: Tensor
    written: Tensor
    r: Tensor
    target: Tensor
    edit: Tensor

    def of(self, edits: Tensor) -> Positions:
        """The positions of these edits, numbered anew."""
        place = torch.full((int(self.edit.max()) + 1,), -1, device=self.edit.device)
        place[edits] = torch.arange(len(edits), device=edits.device)
        kept = place[self.edit] >= 0
        return Positions(self.q[kept], self.written[kept], self.r[kept], self.target[kept], place[self.edit][kept])


class NeuronTraining:
    """Neurons of all edits, trained in one loop: each edit has its own clipping, learning rate and end, so that it ends
    where it would have ended alone.

    Per edit and neuron: `query` and `keys` [edits, neurons, width], `bias` [edits, neurons], and the value as
    `direction` times `scale`, entry by entry [edits, neurons, width]; `real` says which there are, `count` how many.
    """

    @torch.no_grad()
    def __init__(self, model: LanguageModel, config: NeuronConfig, positions: Positions,
                 requests: Sequence[EditRequest], seed: int) -> None:
        """One neuron per wrong token, for the first few: its key answers its own query with 1, its value is random."""
        self.model, self.config, self.positions = model, config, positions
        self.activation = "relu" if model.gated else model.activation
        edits, width, device = len(requests), positions.q.shape[1], positions.q.device
        wrong = self._logits(positions, None).argmax(-1) != positions.target
        found = [(wrong & (positions.edit == edit)).nonzero().flatten()[: config.max_neurons] for edit in range(edits)]
        self.count = torch.tensor([*map(len, found)], device=device)
        most = max(map(len, found))  # where there are fewer, the others are there, and do nothing
        self.query = positions.q.new_zeros(edits, most, width)
        values = torch.zeros_like(self.query)
        for edit, (request, places) in enumerate(zip(requests, found, strict=True)):
            self.query[edit, : len(places)] = positions.q[places]
            # e ~ N(0, 1), whatever the request's place among the others
            digest = hashlib.sha256(f"{seed} {request.prompt} {request.target}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            values[edit] = torch.randn(config.max_neurons, width, generator=generator)[:most].to(device)
        self.real = torch.arange(most, device=device)[None] < self.count[:, None]
        # k = q / ‖q‖² and b = 0, so that a(q) = k·q + b = 1
        norms = self.query.square().sum(-1, keepdim=True).clamp(min=1e-12)
        self.keys = nn.Parameter(self.query / norms)
        self.bias = nn.Parameter(self.query.new_zeros(edits, most))
        self.direction = nn.Parameter(values)
        self.scale = nn.Parameter(torch.full_like(values, config.amplify))
        self.parameters = [self.keys, self.bias, self.direction, self.scale]
        self.steps = torch.zeros_like(self.count)
        self.right = self.count == 0
        self.rate = torch.ones(edits, device=device)

    @property
    def values(self) -> Tensor:
        """v = s ⊙ e [edits, neurons, width], 0 where there is no neuron."""
        return self.direction * self.scale * self.real[..., None]

    def _logits(self, positions: Positions, edits: Tensor | None) -> Tensor:
        """Logits at every position [n, vocabulary], with the neurons of `edits` (numbered as in `positions`) on."""
        hidden = positions.r
        if edits is not None:
            keys, bias, values = (of[edits][positions.edit] for of in (self.keys, self.bias, self.values))
            # r + Σ_i v_i act(a_i(q)),  a_i(q) = k_i·q + b_i
            inputs = torch.einsum("nd,nkd->nk", positions.q, keys) + bias
            active = activation_function(self.activation)(inputs)
            more = torch.einsum("nk,nkd->nd", active, values)
            hidden = self.model.with_more(self.model.depth - 1, hidden, positions.written, more)
        return self.model.head(self.model.finish(hidden.to(self.model.module.dtype)))

    def losses(self, positions: Positions, edits: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Per edit [edits]: the whole loss, L = CE + activation_weight L_a + memory_weight L_m, and CE and L_m."""
        config, logits = self.config, self._logits(positions, edits)
        # CE: the mean over an edit's target tokens; what PyTorch smooths it spreads over the target, too
        others = 1 - 1 / logits.shape[1]
        nll = nn.functional.cross_entropy(logits, positions.target, reduction="none",
                                          label_smoothing=config.label_smoothing / others)
        tokens = torch.bincount(positions.edit, minlength=len(edits))
        fit = nll.new_zeros(len(edits)).index_add(0, positions.edit, nll) / tokens
        # a_i(q_i) of each neuron at its own query, and a_i(m) at each of the memory's
        own = torch.einsum("ekd,ekd->ek", self.query[edits], self.keys[edits]) + self.bias[edits]
        # of which no neuron's place among the largest terms is taken by more than so many
        real, most = self.real[edits], -(-config.top_memories // config.copies)
        keys, bias = self.keys[edits][real], self.bias[edits][real]
        found: Tensor = _Highest.apply(keys, bias, memory, most)  # type: ignore[no-untyped-call]
        other = found.new_full((*real.shape, found.shape[1]), -math.inf).index_put((real,), found)
        # L_a = mean of the largest exp(-a_i(q_i)). All are equal at the start, where rounding should not choose.
        ranked = own + TIE * torch.arange(own.shape[1], device=own.device)
        activation = _top_mean((-ranked).exp(), real, config.top_activations, config.copies)
        # L_m = mean of the largest exp(a_i(m) - a_i(q_i) + μ₁), and of the largest exp(a_i(m) - μ₂)
        first, second = config.margins
        real = real[..., None].expand_as(other).flatten(1)
        silent = (_top_mean((other - own[..., None] + first).exp().flatten(1), real, config.top_memories, config.copies)
                  + _top_mean((other - second).exp().flatten(1), real, config.top_memories, config.copies))
        return fit + config.activation_weight * activation + config.memory_weight * silent, fit, silent

    def train(self, memory: Tensor, held_out: Tensor) -> None:
        """Against the memory's keys [keys, width]; the held-out ones decide when an edit ends."""
        config, watch = self.config, _Watch(len(self.count), self.config)
        optimizer = torch.optim.Adam(self.parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        active = (self.count > 0).nonzero().flatten()
        positions = self.positions.of(active)
        for step in range(1, config.steps + 1):
            if not len(active):
                break
            optimizer.zero_grad()
            self.losses(positions, active, memory)[0].sum().backward()
            self._step(optimizer, active)
            self.steps[active] = step
            if step % config.check_every == 0:
                active = active[~self._check(step, positions, active, held_out, watch)]
                positions = self.positions.of(active)
        if len(active):  # the last steps may have come after the last check
            self.right[active] = self._answers(positions, active)

    @torch.no_grad()
    def _step(self, optimizer: torch.optim.Optimizer, active: Tensor) -> None:
        """Adam with a learning rate and a gradient norm of its own for every edit; the others do not move."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        # g ← g min(1, clip / ‖g‖), the norm over all of an edit's parameters
        norms = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
        shrink = (self.config.clip / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(shrink.reshape(-1, *[1] * (gradient.ndim - 1)))
        before = [parameter.clone() for parameter in self.parameters]
        optimizer.step()
        rate = torch.zeros_like(self.rate).index_copy(0, active, self.rate[active])
        # Adam's step is proportional to its rate, so that a share of the step is a step at that share of the rate.
        for parameter, old in zip(self.parameters, before, strict=True):
            parameter.copy_(old.lerp(parameter, rate.reshape(-1, *[1] * (old.ndim - 1))))

    @torch.no_grad()
    def _check(self, step: int, positions: Positions, active: Tensor, held_out: Tensor, watch: _Watch) -> Tensor:
        """Which of the active edits end here; also lowers the learning rate of those on a plateau."""
        _, fit, silent = self.losses(positions, active, held_out)
        self.right[active] = right = self._answers(positions, active)
        ends = torch.zeros_like(right)
        for place, edit in enumerate(active.tolist()):
            self.rate[edit] *= watch.decay(edit, float(fit[place]))
            ends[place] = right[place] and step > self.config.check_from and watch.stalls(edit, float(silent[place]))
        return ends

    @torch.no_grad()
    def _answers(self, positions: Positions, active: Tensor) -> Tensor:
        """Which of the active edits [active] have all their tokens right."""
        wrong = (self._logits(positions, active).argmax(-1) != positions.target).float()
        return wrong.new_zeros(len(active)).index_add(0, positions.edit, wrong) == 0

    def patch(self, edit: int) -> Patch:
        count = int(self.count[edit])
        steps, right = int(self.steps[edit]), bool(self.right[edit])
        keys, bias, values = (of[edit, :count].detach() for of in (self.keys, self.bias, self.values))
        path = self.model.ffn_path(self.model.depth - 1)
        queries = self.positions.q[self.positions.edit == edit].half() if self.config.remember else None
        term = Neurons(path, keys.clone(), values.T.contiguous(), self.activation, bias.clone(), queries=queries)
        return Patch((term,) if count else (),
                     {"editor": "t-patcher", "neurons": count, "steps": steps, "right": right})


class _Watch:
    """What each edit has reached at its checks."""

    def __init__(self, edits: int, config: NeuronConfig) -> None:
        self.config = config
        self.best_fit, self.flat = [math.inf] * edits, [0] * edits  # flat, worse: checks without progress
        self.best_memory, self.worse = [math.inf] * edits, [0] * edits

    def decay(self, edit: int, fit: float) -> float:
        """The factor for the learning rate: below 1 when the cross-entropy has not fallen for long enough."""
        factor, patience, threshold = self.config.plateau
        improved = fit < self.best_fit[edit] * (1 - threshold)
        self.best_fit[edit] = fit if improved else self.best_fit[edit]
        self.flat[edit] = 0 if improved else self.flat[edit] + 1
        if self.flat[edit] <= patience:
            return 1.0
        self.flat[edit] = 0
        return factor

    def stalls(self, edit: int, memory: float) -> bool:
        """Whether the memory loss has stopped improving."""
        improved = memory < self.best_memory[edit] - self.config.improvement
        self.best_memory[edit] = memory if improved else self.best_memory[edit]
        self.worse[edit] = 0 if improved else self.worse[edit] + 1
        return self.worse[edit] >= self.config.patience


def _top_mean(values: Tensor, real: Tensor, most: int, copies: int) -> Tensor:
    """Mean of the `most` largest real values of each row [rows], each of them there `copies` times; of all where there
    are fewer."""
    top = values.masked_fill(~real, -math.inf).topk(min(-(-most // copies), values.shape[1]), dim=1).values
    kept = top > -math.inf
    # of the last one as many copies as still count
    times = (most - copies * torch.arange(top.shape[1], device=top.device)).clamp(max=copies) * kept
    return (top.masked_fill(~kept, 0.0) * times).sum(1) / times.sum(1).clamp(min=1)


class _Highest(torch.autograd.Function):
    """The `most` largest k·m + b of each neuron [neurons, most] over the keys m of the memory, which may be in another
    dtype. Only those have a part in the gradient, so that nothing is kept of the others."""

    @staticmethod
    def forward(ctx: Any, keys: Tensor, bias: Tensor, memory: Tensor, most: int) -> Tensor:
        found = [torch.addmm(bias[:, None], keys, part.float().T).topk(min(most, len(part)), dim=1)
                 for part in memory.split(CHUNK)]
        values = torch.cat([part.values for part in found], 1)
        places = torch.cat([part.indices + number * CHUNK for number, part in enumerate(found)], 1)
        top, chosen = values.topk(min(most, len(memory)), dim=1)
        ctx.save_for_backward(memory, places.gather(1, chosen))
        return top

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        memory, places = ctx.saved_tensors
        # dL/dk = Σ_m dL/da(m) m,  dL/db = Σ_m dL/da(m)
        if memory.dtype == slope.dtype:
            summed = nn.functional.embedding_bag(places, memory, per_sample_weights=slope, mode="sum")
        else:  # it would sum in 16 bits
            summed = torch.bmm(slope[:, None], memory[places].float())[:, 0]
        return summed, slope.sum(1), None, None
