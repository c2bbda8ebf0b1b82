"""The measures a campaign can ask for, by name: a measure is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from editors.core.errors import InputError
from editors.core.registry import look_up
from evaluators.cases import ROLES, Case, Edited, Role
from evaluators.scoring.costs import METRICS as COSTS
from evaluators.scoring.measures.base import Measure
from evaluators.scoring.metrics import DERIVED, METRICS, Metric, Score

if TYPE_CHECKING:
    from editors.core.models.model import LanguageModel
    from editors.core.patches.patch import Patch
    from evaluators.datasets import DatasetSpec
    from evaluators.scoring.observe import Observation

MEASURES = {
    "kl": "evaluators.scoring.measures.divergence:Divergence",
    "distracting": "evaluators.scoring.measures.distracting:Distracting",
    "generation": "evaluators.scoring.measures.generation:Generation",
    "fluency": "evaluators.scoring.measures.fluency:Fluency",
    "perplexity": "evaluators.scoring.measures.perplexity:Perplexity",
}


def get_measure(name: str) -> type[Measure]:
    """The measure registered under `name`. Raises `InputError` with the nearest name for an unknown one."""
    found: type[Measure] = look_up("measure", name, MEASURES)
    return found


def all_metrics() -> dict[str, Metric]:
    """Every metric that there is by name, those of one kind of question together."""
    return _all_metrics(tuple(MEASURES))


@cache
def _all_metrics(measures: tuple[str, ...]) -> dict[str, Metric]:
    found = METRICS | {metric.name: metric for name in measures for metric in get_measure(name).metrics} | DERIVED
    found |= {metric.name: metric for metric in COSTS}
    asked = list(dict.fromkeys(name.rpartition(".")[0] for name in found))
    return dict(sorted(found.items(), key=lambda item: asked.index(item[0].rpartition(".")[0])))


@dataclass(frozen=True)
class Measures:
    """The measures of a campaign, in the order of `MEASURES`. What is asked of all of them together is asked here."""

    chosen: tuple[Measure, ...] = ()

    @staticmethod
    def parse(value: object) -> Measures:
        """From `{name: true, other: {its settings}}`. Raises pydantic's `ValidationError` with each mistake's place."""
        if isinstance(value, Measures):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a mapping from measures to their settings, got {value!r}")
        found, mistakes = dict[str, Measure](), list[InitErrorDetails]()
        for name, settings in value.items():
            try:
                measure = get_measure(str(name))
                if isinstance(settings, Mapping) or settings is True:
                    found[name] = measure.model_validate({} if settings is True else settings)
                elif settings is not None and settings is not False:
                    raise InputError(f"expected true, false or a mapping of its settings, got {settings!r}")
            except InputError as error:
                mistakes.append(_mistake(str(error), (str(name),), settings))
            except ValidationError as error:
                for detail in error.errors():
                    own = detail["type"] in ("value_error", "unknown_field")  # these name the value
                    told = detail["msg"].removeprefix("Value error, ") + ("" if own else f", got {detail['input']!r}")
                    mistakes.append(_mistake(told, (str(name), *detail["loc"]), detail["input"]))
        if mistakes:
            raise ValidationError.from_exception_data("Measures", mistakes)
        return Measures(tuple(found[name] for name in MEASURES if name in found))

    def __iter__(self) -> Iterator[Measure]:
        return iter(self.chosen)

    def identity(self) -> dict[str, Any]:
        """What is measured, as JSON; empty for nothing."""
        return {measure.name: measure.identity() for measure in self}

    def each(self, change: Callable[[Measure], Measure]) -> Measures:
        return replace(self, chosen=tuple(map(change, self)))

    def on(self, dataset: DatasetSpec) -> Measures:
        """The measures as they are taken on one data set."""
        return self.each(lambda measure: measure.on(dataset))

    @property
    def of_baseline(self) -> Measures:
        """Those that ask the unedited model, too."""
        return replace(self, chosen=tuple(measure for measure in self if measure.of_baseline))

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that a case may have a value of, by name."""
        return METRICS | {metric.name: metric for measure in self for metric in measure.metrics}

    @cached_property
    def versions(self) -> dict[str, int]:
        """The version of every metric that a case may have a value of."""
        return {name: metric.version for name, metric in self.metrics.items()}

    # --- at work

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """The questions to ask the unedited model."""
        return (*ROLES, *(role for measure in self for role in measure.roles))

    @cached_property
    def edited_roles(self) -> tuple[Role, ...]:
        """The questions to ask an edited one: what it knows already is asked of the unedited model only."""
        return tuple(role for role in self.roles if role != "link")

    @cached_property
    def compared(self) -> tuple[Role, ...]:
        """The questions whose distributions are compared with the unedited model's."""
        return tuple(dict.fromkeys(role for measure in self for role in measure.compared))

    def observe(self, model: LanguageModel, cases: Sequence[Case], observations: Sequence[Observation],
                patches: Sequence[Patch], rows: Sequence[int]) -> list[Observation]:
        """The observations with what all measures ask in addition; see `Measure.observe`."""
        observations = list(observations)
        for measure in self:
            observations = measure.observe(model, cases, observations, patches, rows)
        return observations

    def score(self, model: LanguageModel, edited: Sequence[Edited]) -> Iterable[Score]:
        """The scores of all measures; see `Measure.score`."""
        return (score for measure in self for score in measure.score(model, edited))

    # --- as part of a campaign

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.parse)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: core_schema.CoreSchema,
                                     handler: GetJsonSchemaHandler) -> dict[str, Any]:
        properties = {}
        for name in MEASURES:
            measure = get_measure(name)
            properties[name] = {"anyOf": [{"type": "boolean"}, handler(measure.__pydantic_core_schema__)],
                                "description": (measure.__doc__ or "").strip()}
        return {"type": "object", "additionalProperties": False, "properties": properties}


def _mistake(text: str, location: tuple[str | int, ...], value: Any) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("value_error_of_part", "{text}", {"text": text}), loc=location,
                            input=value)


NOTHING_MORE = Measures()
