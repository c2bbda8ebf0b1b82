"""ROME: a rank-one change of one down-projection (Meng et al. 2022, section 3.1; keys as in Gupta et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from editors.core.editor import Editor, Resources
from editors.core.errors import InputError
from editors.core.memory import FACTORING, SINGLE, Bytes, Needs
from editors.core.methods.contexts import sample_contexts
from editors.core.methods.values import ValueConfig, Values, optimise_values
from editors.core.models.architectures import Shape
from editors.core.models.model import LanguageModel
from editors.core.models.statistics import KeySolver
from editors.core.patches.patch import LowRank, Patch
from editors.core.requests import EditRequest


class RomeConfig(ValueConfig):
    """The value's settings, and where and for which key it is written."""

    layer: int
    """Block whose down-projection is edited, counted from 0. Meng et al. 2022, section 3: 5 in GPT-J."""

    key: Literal["consistent", "original"] = "consistent"
    """Which key the edit is written for: the mean over all contexts throughout, or, as first published, the bare
    prompt's with the mean's direction, which can blow up. Gupta et al. 2024."""

    covariance: bool = True
    """Whether the direction allows for the second moment of keys in text (Meng et al. 2022, Eq. 2), or is the key
    itself (EasyEdit's configuration)."""

    @property
    def edited_layers(self) -> tuple[int, ...]:
        return (self.layer,)


class ROME(Editor[RomeConfig]):
    """Finds a value for the subject's key, then the smallest change of W that stores it."""

    name = "rome"
    version = 7
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
    def needs(cls, config: RomeConfig, of: Bytes, facts: int = 1) -> Needs:
        factor = of.moment if config.covariance else 0.0
        return replace(config.needs(of, config.layer), held=factor, loading=FACTORING * factor,
                       each=SINGLE * (of.shape.width + of.shape.inner))

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

    @property
    def provenance(self) -> dict[str, Any]:
        """The contexts that were sampled, and the ridge that the second moment was solved with."""
        path = self.model.down_path(self.config.layer)
        return {"contexts": self.contexts, "ridge": {path: self._solver.ridge} if self.config.covariance else {}}

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        patches: dict[int, Patch] = {}
        layer = self.config.layer
        for numbers, values in optimise_values(self.model, requests, layer, self.contexts, self.config,
                                               anchor=self.model.ffn_path(layer)):
            patches |= zip(numbers, self._insert(values), strict=True)
        return [patches[number] for number in range(len(requests))]

    def _insert(self, values: Values) -> list[Patch]:
        """ΔW = (v* - v) uᵀ / (u·k) of each edit (Eq. 2): afterwards its key k yields its value v*."""
        keys, outputs = values.keys.double(), values.values.double()
        # v* = v0 + δ, v0 the output for the bare prompt, which is row 0
        targets = outputs[:, 0] + values.delta.double()
        # u = C⁻¹k* / ‖C⁻¹k*‖, k* the mean over contexts (Eq. 3)
        means = keys.mean(1)
        directions = self._solver.solve(means.T).T if self.config.covariance else means
        directions = directions / directions.norm(dim=1, keepdim=True)
        # k and v: means over contexts, or the bare prompt's alone
        at = slice(None) if self.config.key == "consistent" else slice(0, 1)
        projections = (directions * keys[:, at].mean(1)).sum(1)
        changes = (targets - outputs[:, at].mean(1)) / projections[:, None]
        path = self.model.down_path(self.config.layer)
        return [Patch((LowRank(path, change.float()[:, None], direction.float()[:, None]),),
                      {"editor": "rome", "loss": float(loss), "steps": int(steps), "key_projection": float(projection),
                       "delta_norm": float(delta.norm())})
                for change, direction, loss, steps, projection, delta
                in zip(changes, directions, values.loss, values.steps, projections, values.delta, strict=True)]
