"""Axes of all that is drawn: where a value is, and which ticks stand there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from evaluators.report.sweeps import shown_value, value_key

MOST = 6  # steps between ticks
LOG = 20  # from this ratio of the largest value to the least on, a setting's axis is logarithmic


class Axis(NamedTuple):
    """From `first` to `last`, with ticks and their labels."""

    name: str
    first: float
    last: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value is, from 0 to 1; what is off the axis is at its end."""
        first, last = self.first, self.last
        if self.log:
            first, last, value = math.log(first), math.log(last), math.log(max(value, first))
        return min(max((value - first) / (last - first), 0.0), 1.0)

    def labels(self, length: float, letter: float) -> Iterator[tuple[float, str]]:
        """The ticks on an axis so long, where a letter is so wide; without the labels that have no room."""
        free = -math.inf  # where the last label ends
        for value, label in self.ticks:
            at, half = length * self.place(value), letter * len(label) / 2
            fits = at - half > free
            yield at, label if fits else ""
            free = at + half if fits else free


def linear(name: str, most: float) -> Axis:
    """From 0 to a round number that is not below `most`, in steps of 1, 2 or 5 times a power of ten."""
    most = most if most > 0 else 1.0
    power = 10.0 ** math.floor(math.log10(most / MOST))
    step = next(times * power for times in (1, 2, 5, 10) if most / (times * power) <= MOST)
    count = math.ceil(most / step - 1e-9)
    return Axis(name, 0.0, step * count, [(step * tick, f"{step * tick:g}") for tick in range(count + 1)])


def logarithmic(name: str, values: Iterable[float]) -> Axis:
    """Around positive values, between powers of ten."""
    found = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    high = max(high, low + 1)
    every = -(-(high - low) // MOST)
    ticks = [10.0**power for power in range(low, high + 1, every)]
    return Axis(name, 10.0**low, 10.0**high, [(tick, f"{tick:g}") for tick in ticks], log=True)


class Values(NamedTuple):
    """An axis that has a tick at each of some values, and nothing beyond; `numbers` has their places on it, by the keys
    they are sorted by."""

    axis: Axis
    numbers: Mapping[tuple[Any, ...], float]

    @classmethod
    def of(cls, name: str, values: Sequence[Any], log: float = LOG) -> Values:
        """Logarithmic where the largest of these sorted values is more than `log` times the least, linear where it is
        not, one place each where some are no numbers."""
        are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        numbers = [float(value) for value in values] if are_numbers else [float(place) for place in range(len(values))]
        first, last = numbers[0], numbers[-1]
        is_log = are_numbers and 0 < first * log < last
        if first == last:  # in the middle
            first, last = first - 1, last + 1
        ticks = [(number, shown_value(value)) for number, value in zip(numbers, values, strict=True)]
        return cls(Axis(name, first, last, ticks, is_log), dict(zip(map(value_key, values), numbers, strict=True)))

    def place(self, value: Any) -> float:
        return self.axis.place(self.numbers[value_key(value)])

    @property
    def kind(self) -> str:
        return ", logarithmic" if self.axis.log else ""
