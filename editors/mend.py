"""MEND: a network per matrix shape rewrites the factors of the edit's gradient (Mitchell et al. 2022a, section 3)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.examples import Example
from editors.core.methods.hyper_editor import HyperEditor, HyperTrainee
from editors.core.methods.hypernetwork import Factors, HyperConfig, Hypernetwork, Matrix, Update, matrices
from editors.core.models.architectures import Shape
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Patch
from editors.core.requests import EditRequest

EPSILON = 1e-7  # added to standard deviations
FLOOR = 0.01  # least standard deviation, as a share of the mean one: a neuron that training never saw fire may fire


class MendConfig(HyperConfig):
    """The settings of practice, and of the networks that rewrite gradients."""

    rank: PositiveInt = 1920
    """Rank of the networks' matrices, at most. Mitchell et al. 2022a, published configuration."""

    alpha: PositiveFloat = 1e-4
    """Where the learned step sizes start, one for each matrix. Mitchell et al. 2022a, published configuration."""

    alpha_learning_rate: PositiveFloat = 1e-4
    """Adam's learning rate for the step sizes. Mitchell et al. 2022a, published configuration."""

    sign: Literal["+", "-"] = "+"
    """Sign of the step: the published `+` climbs the loss until training has turned it, `-`, ours, descends from the
    start."""

    norm: bool = True
    """Whether factors are standardised. Mitchell et al. 2022a, section 3.1. Ours: no deviation counts as less than a
    hundredth of the mean one, for what no training fact moves an edit may."""

    statistics_examples: PositiveInt = 1000
    """Training facts over whose tokens means and deviations are taken. Ours: the published code counts them while it
    trains."""

    joint_loss: Literal["mean", "sum"] = "mean"
    """Of a joint edit: `mean` takes the gradient of the mean loss (Mitchell et al. 2022a, who train a network for every
    number of edits), `sum`, ours, that of each edit as if it were alone."""


class Layer(nn.Module):
    """z + relu(s ⊙ (U V z + b) + o), the identity at first; scale s and shift o are each matrix's own (Mitchell et al.
    2022a, section 3.1)."""

    def __init__(self, width: int, rank: int, modes: int) -> None:
        super().__init__()
        rank = min(rank, width)
        self.u = nn.Parameter(torch.zeros(width, rank))
        self.v = nn.Parameter(torch.randn(rank, width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.ones(modes, width))
        self.shift = nn.Parameter(torch.zeros(modes, width))

    def forward(self, z: Tensor, mode: int) -> Tensor:
        # U V z + b
        inner = z @ self.v.T @ self.u.T + self.bias
        # clamp, whose gradient at 0 is 1: relu's is 0, and nothing would ever leave the identity
        return z + (self.scale[mode] * inner + self.shift[mode]).clamp(min=0)


class Transform(nn.Module):
    """The network and the statistics that all matrices of one shape share. `mean` and `std` are [in + out]."""

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: int, outputs: int, rank: int, modes: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.layers = nn.ModuleList(Layer(inputs + outputs, rank, modes) for _ in range(2))
        self.register_buffer("mean", torch.zeros(inputs + outputs))
        self.register_buffer("std", torch.ones(inputs + outputs) - EPSILON)

    def forward(self, factors: Factors, mode: int) -> Factors:
        """The factors at tokens that count, rewritten; the others stay 0."""
        # z = ([x_t; g_t] - mean) / std
        z = (torch.cat([factors.x, factors.grad], -1)[factors.real] - self.mean) / (self.std + EPSILON)
        for layer in self.layers:
            z = layer(z, mode)
        x, grad = z[:, : self.inputs], z[:, self.inputs:]
        return Factors(factors.x.new_zeros(factors.x.shape).masked_scatter(factors.real[..., None], x),
                       factors.grad.new_zeros(factors.grad.shape).masked_scatter(factors.real[..., None], grad),
                       factors.real)

    def standardise(self, tokens: Tensor) -> None:
        """Takes mean and deviation from tokens [n, in + out]."""
        self.mean.copy_(tokens.mean(0))
        std = tokens.std(0)
        for part in (std[: self.inputs], std[self.inputs:]):
            part.clamp_(min=FLOOR * float(part.mean()))
        self.std.copy_(std)


class MendNetwork(Hypernetwork):
    """A `Transform` for every shape of matrix, and a step size for every matrix."""

    in_half = (".u", ".v")

    def __init__(self, edited: Sequence[Matrix], config: MendConfig) -> None:
        super().__init__()
        self.matrices, self.config = edited, config
        shapes = [_shape(matrix) for matrix in edited]
        self.modes = [shapes[:number].count(shape) for number, shape in enumerate(shapes)]
        self.transforms = nn.ModuleDict({
            shape: Transform(matrix.inputs, matrix.outputs, config.rank, shapes.count(shape))
            for shape, matrix in dict(zip(shapes, edited, strict=True)).items()})
        self.alpha = nn.Parameter(torch.full((len(edited),), config.alpha))

    def forward(self, factors: Mapping[str, Factors], requests: Sequence[EditRequest]) -> dict[str, Update]:
        """ΔW = ± alpha Σ_t g'_t x'_tᵀ, x' and g' the factors as the network of their shape rewrites them."""
        steps = self.alpha if self.config.sign == "+" else -self.alpha
        updates = {}
        for matrix, mode, step in zip(self.matrices, self.modes, steps, strict=True):
            x, grad, real = self.transforms[_shape(matrix)](factors[matrix.path], mode)
            updates[matrix.path] = Update(step * grad, x, real)
        return updates

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.transforms.parameters())},
                {"params": [self.alpha], "lr": self.config.alpha_learning_rate}]

    @torch.no_grad()
    def standardise(self, tokens: Mapping[str, Tensor]) -> None:
        """Statistics of every shape from the tokens [n, in + out] at its matrices, by path."""
        for shape, transform in self.transforms.items():
            assert isinstance(transform, Transform)
            transform.standardise(torch.cat([tokens[m.path] for m in self.matrices if _shape(m) == shape]))


def _shape(matrix: Matrix) -> str:
    return f"{matrix.inputs} to {matrix.outputs}"


class MEND(HyperEditor[MendConfig]):
    """Adds ± alpha Σ_t g'_t x'_tᵀ to every matrix (Mitchell et al. 2022a, algorithm 2).

    The authors count means and deviations while they train; here one pass over training facts comes before it, so that
    a run that is resumed is the same run.
    """

    name = "mend"
    version = 2
    Config = MendConfig

    @classmethod
    def training_settings(cls, config: MendConfig) -> dict[str, Any]:
        return {name: value for name, value in super().training_settings(config).items() if name != "joint_loss"}

    @classmethod
    def network_numbers(cls, config: MendConfig, of: Shape) -> float:
        width = of.width + of.inner  # of both shapes of matrix; a gated FFN may have one more
        return 2 * 2 * 2 * min(config.rank, width) * width

    @classmethod
    def build(cls, model: LanguageModel, config: MendConfig) -> MendNetwork:
        return MendNetwork(matrices(model, config), config)

    @classmethod
    def begin(cls, trainee: HyperTrainee, examples: Sequence[Example], seed: int) -> None:
        network, config = trainee.module, trainee.config
        assert isinstance(network, MendNetwork) and isinstance(config, MendConfig)
        if not config.norm:
            return
        chosen = random.Random(f"statistics {seed}").sample(examples, min(config.statistics_examples, len(examples)))
        tokens: dict[str, list[Tensor]] = {matrix.path: [] for matrix in network.matrices}
        for part in cls.in_parts(trainee.model, config, [example.request for example in chosen]):
            for path, factors in trainee.factors(part).items():  # too many for a device
                tokens[path].append(torch.cat([factors.x, factors.grad], -1)[factors.real].cpu())
        network.standardise({path: torch.cat(parts) for path, parts in tokens.items()})

    def edit(self, requests: Sequence[EditRequest]) -> Patch:
        """All requests' tokens side by side, with the gradient of the mean loss over target tokens, or of the sum of
        the requests' losses."""
        total = None
        if self.config.joint_loss == "mean":
            total = sum(len(self.model.encode(r.prompt, r.target, end=True).target) for r in requests)
        return sum(self._patches(requests, total), Patch()).compact()
