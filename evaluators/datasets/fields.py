"""What the fields of records hold. Every text that a case takes from a record is checked: it is a string without null
bytes and lone surrogates, and not empty. Fields that no case needs are not looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    model_validator,
)
from pydantic.fields import FieldInfo

from editors.core.errors import spelt

# What tables write where they have no value (pandas, R, SQL), as text and in their spelling: "Na", "Nan" and "Nat" are
# names. Some of them may be answers, too, and "None" often is: it is not among them.
NULLS = frozenset(("NaN", "nan", "N/A", "n/a", "#N/A", "<NA>", "NaT"))
NULLS_OR_ANSWERS = frozenset(("NA", "NULL", "null"))
DEEPEST = 20  # more levels of a record than any format has a meaning for


class Malformed(ValueError):
    """A record is not what its format asks for."""


def without_nulls(value: Any, depth: int = DEEPEST) -> Any:
    """A record without the fields, and the items of lists, that are null, NaN, or text that can mean nothing else.
    Whole numbers are integers again: a table's column of them is one of floats where a value is missing."""
    if isinstance(value, dict | list) and not depth:
        return value
    if isinstance(value, dict):
        return {key: without_nulls(inner, depth - 1) for key, inner in value.items() if not _is_null(inner)}
    if isinstance(value, list):
        return [without_nulls(inner, depth - 1) for inner in value if not _is_null(inner)]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_null(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and value.strip() in NULLS)


def says_nothing(value: Any) -> bool:
    """Whether a value is empty, or a text that stands for none where one may be missing."""
    return value in ([], {}) or (isinstance(value, str) and value.strip() in {"", *NULLS_OR_ANSWERS})


def stated(content: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """A record without those of a model's fields that may be left out and say nothing. Fields that a model needs keep
    what they hold: "NA" may be an answer."""
    optional = _optional(model)
    return {key: value for key, value in content.items() if not (key in optional and says_nothing(value))}


@cache
def _optional(model: type[BaseModel]) -> frozenset[str]:
    """The keys of the fields that may be left out, but for texts that are "" then: they are asked for in some cases."""
    return frozenset(key for name, field in model.model_fields.items() for key in _keys_of(name, field)
                     if not field.is_required() and not isinstance(field.default, str))


def _keys_of(name: str, field: FieldInfo) -> Iterable[str]:
    """What a record may call a field."""
    alias = field.validation_alias
    return map(str, alias.choices) if isinstance(alias, AliasChoices) else (str(alias or name),)


def that_say_something(values: Any) -> Any:
    """A list without the items that say nothing."""
    return [value for value in values if not says_nothing(value)] if isinstance(values, list) else values


def unfit(text: str, *, may_be_empty: bool = False) -> str | None:
    """What makes a text unfit for a model, if something does."""
    if not text.strip() and not may_be_empty:
        return "it is empty"
    if "\0" in text:
        return "it holds a null byte"
    return "it holds half of a surrogate pair" if any("\ud800" <= char <= "\udfff" for char in text) else None


def _checked(text: str, *, may_be_empty: bool = False) -> str:
    if problem := unfit(text, may_be_empty=may_be_empty):
        raise ValueError(problem)
    return text


Text = Annotated[str, AfterValidator(_checked)]
Optional = Annotated[str, AfterValidator(partial(_checked, may_be_empty=True))]
Prompts = Annotated[list[Text], BeforeValidator(that_say_something)]
Name = int | Text


class Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _stated(cls, content: Any) -> Any:
        return stated(content, cls) if isinstance(content, dict) else content


def texts_in(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """All texts in a value, with their places."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts_in(inner, f"{place}.{spelt(key)}" if place else spelt(key))
