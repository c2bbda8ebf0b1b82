"""What a search tries next, by Optuna's TPE (Bergstra et al. 2011): pure code, told scores and asked for settings.

Nothing is kept: seeded alike and told the same scores in the same order, it proposes the same. So a search goes on from
the results in a store alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cluster.campaign.search import Range
from editors.core.errors import InputError, quoted

DIGITS = 4  # of a proposed number: people read them


def number_kind(annotation: Any) -> type[int] | type[float] | None:
    """Whether a setting of this type is an integer or a number, or (None) something else."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return number_kind(get_args(annotation)[0])
    if origin in (Union, UnionType):
        kinds = {number_kind(part) for part in get_args(annotation) if part is not type(None)}
        return kinds.pop() if len(kinds) == 1 else float if kinds == {int, float} else None
    return annotation if annotation in (int, float) else None


class Space:
    """The values that one setting may have: `whole` numbers or any in a range, or choices."""

    def __init__(self, values: Range | Sequence[Any], annotation: Any) -> None:
        """Raises `InputError` for a range that does not fit a field of this type."""
        self.values = values
        self.whole = False
        if isinstance(values, Range):
            kind = number_kind(annotation)
            if kind is None:
                raise InputError("it is no number, so it has no range: give a list of choices")
            self.whole = kind is int
            if self.whole and (odd := [end for end in (values.low, values.high) if not end.is_integer()]):
                raise InputError(f"it is an integer, and {odd[0]:g} is none")
        elif len(texts := list(map(_spelt, values))) > len(set(texts)):
            twice = next(text for text in texts if texts.count(text) > 1)
            raise InputError(f"{quoted(twice)} is listed twice")

    @property
    def ends(self) -> Sequence[Any]:
        """Values that can be had only where all can."""
        if not isinstance(self.values, Range):
            return self.values
        return [self._number(self.values.low), self._number(self.values.high)]

    def suggest(self, trial: Any, name: str) -> Any:
        """A value for one trial of Optuna's."""
        if isinstance(self.values, Range):
            low, high = self.ends
            if self.whole:
                return trial.suggest_int(name, low, high, log=self.values.log)
            value = trial.suggest_float(name, low, high, log=self.values.log)
            return min(max(float(f"{value:.{DIGITS}g}"), low), high)
        # Optuna takes plain values for choices, and ours may be lists.
        choices = {_spelt(value): value for value in self.values}
        return choices[trial.suggest_categorical(name, list(choices))]

    def _number(self, value: float) -> int | float:
        return int(value) if self.whole else value


def _spelt(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


class Proposer:
    """Proposes settings, and learns from the scores it is told. Raises `InputError` where Optuna is not installed."""

    def __init__(self, spaces: Mapping[str, Space], seed: int, better: Literal["higher", "lower"]) -> None:
        try:
            import optuna
        except ImportError as error:
            raise InputError("a search needs optuna, which is not installed: pip install 'editfleet[search]'"
                             ) from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Trials of a batch are judged at once: each proposal keeps away from the others' (the liar).
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._failed = optuna.trial.TrialState.FAIL
        self._study = optuna.create_study(sampler=sampler,
                                          direction="maximize" if better == "higher" else "minimize")
        self._spaces = spaces
        self._open: list[Any] = []

    def ask(self, count: int) -> list[dict[str, Any]]:
        """Settings for so many trials."""
        self._open = [self._study.ask() for _ in range(count)]
        return [{name: space.suggest(trial, name) for name, space in self._spaces.items()} for trial in self._open]

    def tell(self, scores: Sequence[float | None]) -> None:
        """How the trials that were asked for last did, in their order; None for those that failed."""
        for trial, score in zip(self._open, scores, strict=True):
            if score is None:
                self._study.tell(trial, state=self._failed)
            else:
                self._study.tell(trial, score)
        self._open = []
