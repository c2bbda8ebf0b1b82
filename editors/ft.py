"""FT: fine-tunes down-projections on the edit (Meng et al. 2022, appendix E.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat
from torch import nn

from editors.core.memory import SINGLE, Bytes
from editors.core.methods.tuning import Delta, Tuner, TuningConfig
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Dense, Patch
from editors.core.requests import EditRequest


class FineTuningConfig(TuningConfig):
    """The settings of training, and what of a down-projection may change by how much."""

    bias: bool = True
    """Whether the bias is trained too, where there is one. Meng et al. 2022, published code."""

    norm_constraint: PositiveFloat | None = None
    """Most that any one weight may change, often called FT+L; without it there is no bound. Meng et al. 2022, published
    configuration: 5e-5 in FT+L."""


class _Weights(Delta):
    """The changes D [width, inner] of the weight and d [width] of the bias, where there is one, of every edited layer;
    both start at 0."""

    def __init__(self, model: LanguageModel, config: FineTuningConfig) -> None:
        self.limit = config.norm_constraint
        self.weights: dict[str, nn.Parameter] = {}
        self.biases: dict[str, nn.Parameter] = {}
        for path in map(model.down_path, config.layers):
            self.weights[path] = nn.Parameter(torch.zeros(model.matrix(path), device=model.device))
            if config.bias and model.submodule(path).bias is not None:
                self.biases[path] = nn.Parameter(torch.zeros(model.matrix(path)[0], device=model.device))

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.weights.values(), *self.biases.values()]

    def patch(self) -> Patch:
        # W_out += D,  b_out += d
        return Patch(tuple(Dense(path, weight, self.biases.get(path)) for path, weight in self.weights.items()))

    def constrain(self) -> None:
        if self.limit is not None:
            # D, d ← clamp(·, -ε, ε)
            for parameter in self.parameters:
                parameter.clamp_(-self.limit, self.limit)


class FineTuning(Tuner[FineTuningConfig]):
    """Trains a dense change of the down-projections with Adam. Independent edits train side by side."""

    name = "ft"
    version = 5
    Config = FineTuningConfig

    def edited(self, layer: int) -> str:
        return self.model.down_path(layer)

    def new_delta(self, requests: Sequence[EditRequest]) -> Delta:
        return _Weights(self.model, self.config)

    @classmethod
    def parameter_bytes(cls, config: FineTuningConfig, of: Bytes) -> float:
        return SINGLE * len(config.layers) * of.matrix
