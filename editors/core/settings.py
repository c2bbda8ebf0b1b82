"""What people may set, anywhere: one base class, so that every mistake is told in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from editors.core.errors import unknown

Name = Annotated[str, Field(min_length=1)]  # of anything, or a path
LARGEST = 2**63 - 1  # what files and tensors hold


class Settings(BaseModel):
    """Base of all settings: immutable, unknown fields are errors that say what was probably meant, and the string under
    each field is its documentation (`editfleet schema`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _knows_its_fields(cls, value: Any) -> Any:
        strange = [name for name in value if name not in cls.model_fields] if isinstance(value, Mapping) else []
        if strange:
            nothing = "there is nothing to set here: leave '{}' out"
            texts = {name: str(unknown("field", str(name), cls.model_fields)) if cls.model_fields else
                     nothing.format(name) for name in strange}
            raise ValidationError.from_exception_data(cls.__name__, [
                InitErrorDetails(type=PydanticCustomError("unknown_field", "{text}", {"text": text}), loc=(str(name),),
                                 input=value[name]) for name, text in texts.items()])
        return value

    @model_validator(mode="before")
    @classmethod
    def _has_numbers_for_numbers(cls, value: Any) -> Any:
        """YAML reads `yes` as true and Python takes that for 1: no setting means it so."""
        wrong = [((name, *place), text, found) for name, given in (value.items() if isinstance(value, Mapping) else ())
                 if name in cls.model_fields and _is_numeric(cls.model_fields[name].annotation)
                 for place, found in _leaves(given) if (text := _no_number(found))]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, [
                InitErrorDetails(type=PydanticCustomError("no_number", "{text}", {"text": text}), loc=place,
                                 input=found) for place, text, found in wrong])
        return value


def _is_numeric(annotation: Any) -> bool:
    """Whether a field of this type holds numbers, or lists of them, and neither booleans nor mappings."""
    kinds = set(_plain_types(annotation))
    return bool(kinds & {int, float}) and not kinds & {bool, Any, dict, Mapping}


def _plain_types(annotation: Any) -> Iterator[Any]:
    """The types that a compound one is made of: `tuple[Annotated[int, ...], ...] | None` is of int and None."""
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for part in inner:
        yield from _plain_types(part)


def _leaves(value: Any, place: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _leaves(item, (*place, number))
    else:
        yield place, value


def _no_number(value: Any) -> str:
    """What is wrong with a value that stands for a number; "" where nothing is."""
    if isinstance(value, bool):
        return f"a number is meant here, not {str(value).lower()}"
    if isinstance(value, int) and abs(value) > LARGEST:
        digits = len(str(abs(value))) if abs(value).bit_length() < 10_000 else "thousands of"
        return f"a number of {digits} digits is too large; the largest is {LARGEST}"
    return ""
