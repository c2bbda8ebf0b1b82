"""CaliNET: a few more neurons in the last FFNs, trained on the facts (Dong et al. 2022, section 3)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from editors.core.memory import SINGLE, Bytes
from editors.core.methods.tuning import Delta, Tuner, TuningConfig
from editors.core.models.architectures import Shape
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Neurons, Patch
from editors.core.requests import EditRequest

FACTORED = 3.0  # likewise, of Adafactor, whose moments are a row and a column: a parameter, its gradient, a step
TAIL = 12  # tokens that take as long as an edit's prompt and answer, forth and back through all blocks


class CaliNetConfig(TuningConfig):
    """The settings of training, and of the neurons that join the FFNs."""

    slots: PositiveInt = 64
    """Neurons that join the FFN of every layer, without bias. Dong et al. 2022, published code, for 100 facts."""

    zero_values: bool = True
    """Whether they start writing nothing. Ours: the published code of Dong et al. 2022 leaves their values at the
    library's random start, which disturbs the model at once."""

    optimizer: Literal["adafactor", "adam"] = "adafactor"
    """Adafactor at a constant rate (Dong et al. 2022, published code), or Adam."""

    steps: PositiveInt = 100
    """Passes over an edit's facts, at most. Ours: Dong et al. 2022 take up to 5,000 for 100 facts."""

    lr: PositiveFloat = 1e-2
    """The optimiser's learning rate. Dong et al. 2022, published code."""

    objective: Literal["prompt_last", "target_new"] = "target_new"
    """Where target tokens are read: all at the prompt's last position, or each where it is predicted. Dong
    et al. 2022, published code."""


class _Slots(Delta):
    """Keys K [slots, width], values V [width, slots], and in a gated FFN the keys G [slots, width] of the linear half,
    per layer."""

    def __init__(self, model: LanguageModel, config: CaliNetConfig, generator: torch.Generator) -> None:
        def uniform(rows: int, columns: int) -> nn.Parameter:
            # U(-1/√columns, 1/√columns), the library's own start of a linear layer
            bound = 1 / math.sqrt(columns)
            values = (torch.rand(rows, columns, generator=generator) * 2 - 1) * bound
            return nn.Parameter(values.to(model.device))

        self.activation = model.activation
        self.layers: dict[str, dict[str, nn.Parameter]] = {}
        for path in map(model.ffn_path, config.layers):
            slots = {"keys": uniform(config.slots, model.width), "values": uniform(model.width, config.slots)}
            if config.zero_values:
                nn.init.zeros_(slots["values"])
            if model.gated:
                slots["gate"] = uniform(config.slots, model.width)
            self.layers[path] = slots

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for slots in self.layers.values() for parameter in slots.values()]

    def patch(self) -> Patch:
        # FFN(x) += V act(K x), and V (act(K x) ⊙ G x) where it is gated
        return Patch(tuple(Neurons(path, activation=self.activation, **slots)
                           for path, slots in self.layers.items()))


class CaliNET(Tuner[CaliNetConfig]):
    """Trains the slots of many edits side by side, or those of one joint edit on all its facts."""

    name = "calinet"
    version = 5
    in_weights = False
    Config = CaliNetConfig

    @classmethod
    def cost(cls, config: CaliNetConfig, shape: Shape) -> float:
        run = (shape.depth - min(config.layers)) / shape.depth  # of the blocks, the edited ones and those above
        return shape.flops(TAIL * config.steps * run)

    @classmethod
    def parameter_bytes(cls, config: CaliNetConfig, of: Bytes) -> float:
        return SINGLE * len(config.layers) * config.slots * of.shape.width * (3 if of.shape.gated else 2)

    @classmethod
    def tensors(cls, config: CaliNetConfig) -> float:
        return super().tensors(config) if config.optimizer == "adam" else FACTORED

    def edited(self, layer: int) -> str:
        return self.model.ffn_path(layer)

    def new_delta(self, requests: Sequence[EditRequest]) -> Delta:
        # Random, but the same whatever other edits are made.
        facts = "|".join(f"{request.prompt} {request.target}" for request in requests)
        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {facts}".encode()).digest()[:7], "big")
        return _Slots(self.model, self.config, torch.Generator().manual_seed(seed))

    def new_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.config.optimizer == "adam":
            return super().new_optimizer(parameters)
        from transformers.optimization import Adafactor

        return Adafactor(parameters, lr=self.config.lr, scale_parameter=False, relative_step=False)
