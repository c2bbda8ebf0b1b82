"""ROME: a rank-one change of one down-projection (Meng et al. 2022, section 3; METHODS section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from torch import Tensor

from editors.core.editor import Editor, Resources
from editors.core.errors import InputError
from editors.core.methods.contexts import sample_contexts
from editors.core.methods.values import ValueConfig, Values, optimise_values
from editors.core.models.architectures import Shape
from editors.core.models.model import LanguageModel
from editors.core.models.statistics import KeySolver
from editors.core.patches.patch import LowRank, Patch
from editors.core.requests import EditRequest


class RomeConfig(ValueConfig):
    """`key` decides which key the edit is written for: `consistent` takes the mean over all contexts throughout
    (R-ROME), `original` solves for that mean but divides by the bare prompt's key, as the first code did, which can
    blow up. `covariance: false` takes the key itself as direction (EasyEdit's setting)."""

    layer: int
    key: Literal["consistent", "original"] = "consistent"
    covariance: bool = True

    @property
    def edited_layers(self) -> tuple[int, ...]:
        return (self.layer,)


class ROME(Editor[RomeConfig]):
    """Finds a value for the subject's key, then the smallest change of W that stores it."""

    name = "rome"
    version = 1
    Config = RomeConfig
    decoder_only = True

    def __init__(self, model: LanguageModel, config: RomeConfig, resources: Resources | None = None,
                 seed: int = 0) -> None:
        super().__init__(model, config, resources, seed)
        # Now, of the model as it is given, not when the first edit is made: other edits may be on it then.
        self.contexts = sample_contexts(model, config.contexts, seed)

    @classmethod
    def cost(cls, config: RomeConfig, shape: Shape) -> float:
        return config.cost(shape)

    @classmethod
    def statistics_layers(cls, config: RomeConfig) -> tuple[int, ...]:
        return (config.layer,) if config.covariance else ()

    @cached_property
    def _solver(self) -> KeySolver:
        path = self.model.down_path(self.config.layer)
        if path not in self.resources.statistics:
            raise InputError(f"rome needs the second moment of '{path}'; compute it with `second_moments`, "
                             "or set `covariance: false`")
        return KeySolver(self.resources.statistics[path].to(self.model.device))

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        patches: dict[int, Patch] = {}
        layer = self.config.layer
        for numbers, values in optimise_values(self.model, requests, layer, self.contexts, self.config,
                                               anchor=self.model.ffn_path(layer)):
            for place, number in enumerate(numbers):
                patches[number] = self._insert(values, place)
        return [patches[number] for number in range(len(requests))]

    def _insert(self, values: Values, edit: int) -> Patch:
        """`dW = (v* - v) (C⁻¹k)ᵀ / (kᵀ C⁻¹ k)` (Eq. 2): afterwards the key `k` yields the value `v*`."""
        keys, outputs = values.keys[edit].double(), values.values[edit].double()
        target = outputs[0] + values.delta[edit].double()  # row 0 is the bare prompt
        direction = self._direction(keys.mean(0))
        at = slice(None) if self.config.key == "consistent" else slice(0, 1)
        key, value = keys[at].mean(0), outputs[at].mean(0)
        projection = direction @ key
        change = (target - value) / projection
        info = {"editor": "rome", "loss": float(values.loss[edit]), "steps": int(values.steps[edit]),
                "key_projection": float(projection), "delta_norm": float(values.delta[edit].norm())}
        return Patch((LowRank(self.model.down_path(self.config.layer), change.float()[:, None],
                              direction.float()[:, None]),), info)

    def _direction(self, key: Tensor) -> Tensor:
        direction = self._solver.solve(key[:, None])[:, 0] if self.config.covariance else key
        length: Tensor = direction.norm()
        return direction / length
