"""CaliNET: a few more neurons in the last FFNs, trained on the facts (Dong et al. 2022; METHODS section 3)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from editors.core.methods.tuning import Delta, Tuner, TuningConfig
from editors.core.models.architectures import Shape
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Neurons, Patch
from editors.core.requests import EditRequest

TAIL = 12  # tokens that take as long as an edit's prompt and answer, forth and back through all blocks


class CaliNetConfig(TuningConfig):
    """`slots` neurons without bias join the FFN of every layer, and fire on every input. `zero_values` starts them
    writing nothing; the authors' code leaves them at the library's initialisation, which disturbs the model at once.
    The authors train with Adafactor at a constant rate."""

    slots: PositiveInt = 64
    zero_values: bool = True
    optimizer: Literal["adafactor", "adam"] = "adafactor"
    steps: PositiveInt = 100
    lr: PositiveFloat = 1e-2
    objective: Literal["prompt_last", "target_new"] = "target_new"


class _Slots(Delta):
    """Keys, values, and in a gated FFN the keys of the linear half, per layer; initialised as the library does."""

    def __init__(self, model: LanguageModel, config: CaliNetConfig, generator: torch.Generator) -> None:
        def uniform(rows: int, columns: int) -> nn.Parameter:
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
        return Patch(tuple(Neurons(path, activation=self.activation, **slots)
                           for path, slots in self.layers.items()))


class CaliNET(Tuner[CaliNetConfig]):
    """Trains the slots of many edits side by side, or those of one joint edit on all its facts."""

    name = "calinet"
    version = 1
    Config = CaliNetConfig

    @classmethod
    def cost(cls, config: CaliNetConfig, shape: Shape) -> float:
        run = (shape.depth - min(config.layers)) / shape.depth  # of the blocks, the edited ones and those above
        return shape.flops(TAIL * config.steps * run)

    def new_delta(self, requests: Sequence[EditRequest]) -> Delta:
        facts = "|".join(f"{request.prompt} {request.target}" for request in requests)
        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {facts}".encode()).digest()[:7], "big")
        return _Slots(self.model, self.config, torch.Generator().manual_seed(seed))

    def new_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.config.optimizer == "adam":
            return super().new_optimizer(parameters)
        from transformers.optimization import Adafactor

        return Adafactor(parameters, lr=self.config.lr, scale_parameter=False, relative_step=False)
