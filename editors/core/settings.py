"""What people may set, anywhere: one base class, so that every mistake is told in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from editors.core.errors import unknown


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
