"""What the fields of records hold. Every text that a case takes from a record is checked: it is a string without null
bytes and lone surrogates, and not empty. Fields that no case needs are not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

# What tables write where they have no value (pandas, R, SQL), as text. "None" is none of them: it is an answer, too.
NULLS = ("nan", "na", "n/a", "<na>", "nat", "null")


class Malformed(ValueError):
    """A record is not what its format asks for."""


def without_nulls(value: Any) -> Any:
    """A record without the fields, and the items of lists, that have no value: null, NaN, or text that stands for it.
    """
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if not _is_null(inner)}
    return [without_nulls(inner) for inner in value if not _is_null(inner)] if isinstance(value, list) else value


def _is_null(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and value.strip().casefold() in NULLS)


def first_problem(error: ValidationError) -> str:
    """Where a record is not of its form, and how."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(shown, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def shown(key: str | int) -> str:
    """A key of a record as it can be printed, whatever it holds."""
    return ascii(key).strip("'")


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
Name = int | Text


class Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


def texts_in(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """All texts in a value, with their places."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts_in(inner, f"{place}.{shown(key)}" if place else shown(key))
