"""What people write to search for an editor's settings: the section `search` of a campaign.

    search:
      editor: ft
      over:
        lr: {low: 1.0e-5, high: 1.0e-1, log: true}
        steps: {low: 5, high: 50}
        layers: [[1], [2], [3]]
      trials: 40
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Discriminator, Field, PositiveInt, Tag, model_validator

from editors.core.settings import Name, Settings

MOST_TRIALS = 10_000
OBJECTIVE = ("reliability.exact", "generality.exact", "locality.exact")


class Range(Settings):
    """Numbers between two bounds, which belong to it."""

    low: float
    """The least."""
    high: float
    """The largest."""
    log: bool = False
    """Whether proposals are spread evenly over the number's logarithm: for what may span orders of magnitude."""

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"'low: {self.low:g}' is not below 'high: {self.high:g}'")
        if self.log and self.low <= 0:
            raise ValueError(f"'low: {self.low:g}' has no logarithm; leave 'log' out, or take a number above 0")
        return self


Choices = Annotated[tuple[Any, ...], Field(min_length=1)]


def _kind(value: Any) -> str | None:
    if isinstance(value, list | tuple):
        return "choices"
    return "range" if isinstance(value, dict | Range) else None


Values = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")],
    Discriminator(_kind, custom_error_type="neither", custom_error_message="expected a list of choices, or a range "
                  "with 'low' and 'high'")]


class ValidationSpec(Settings):
    """The cases that trials are judged on, which the campaign is not judged on."""

    limit: PositiveInt = 50
    """How many of each data set: the records that follow those of its `limit`, or without one of its training cases.
    Those that share a subject or a prompt with the campaign's are left out. Ours."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class SearchSpec(Settings):
    """A search for better settings of one editor (`editfleet search`): trials on other cases than the campaign's, and
    then the campaign, with the best beside the preset."""

    editor: Name
    """Which of the campaign's editors: its name or label."""
    over: dict[Name, Values] = Field(min_length=1)
    """The settings that are tried, each with a list of choices, or with a range: `{low: 5, high: 50}`, and `log: true`
    for what may span orders of magnitude."""
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 40
    """How many combinations are tried. Ours."""
    parallel: PositiveInt = 4
    """How many are proposed at once, each without knowing how the others do. Ours."""
    validation: ValidationSpec = ValidationSpec()
    """The cases that trials are judged on."""
    objective: Annotated[tuple[Name, ...], BeforeValidator(_listed), Field(min_length=1)] = OBJECTIVE
    """What is to become as good as it can, by the metric's own direction: a metric, or several shares, of which it is
    the harmonic mean (as of Meng et al. 2022's S)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the proposals. Ours."""
