"""The protocols a campaign can ask for, in the order of tables: a protocol is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from editors.core.errors import InputError
from editors.core.registry import look_up
from evaluators.protocols.base import Protocol

PROTOCOLS = {
    "single": "evaluators.protocols.single:SingleProtocol",
    "batch": "evaluators.protocols.batch:BatchProtocol",
    "sequential": "evaluators.protocols.sequential:SequentialProtocol",
    "efficiency": "evaluators.protocols.efficiency:EfficiencyProtocol",
}


def get_protocol(name: str) -> type[Protocol]:
    """The protocol registered under `name`. Raises `InputError` with the nearest name for an unknown one."""
    found: type[Protocol] = look_up("protocol", name, PROTOCOLS)
    return found


def parse_protocol(value: object) -> Protocol:
    """From a bare name, or a mapping with `name` and settings. Raises `ValueError` as pydantic wants it."""
    if isinstance(value, Protocol):
        return value
    fields = {"name": value} if isinstance(value, str) else value
    if not isinstance(fields, Mapping) or not isinstance(fields.get("name"), str):
        raise ValueError(f"expected the name of a protocol, or a mapping with its name, got {value!r}")
    try:
        protocol = get_protocol(fields["name"])
    except InputError as error:
        raise ValueError(str(error)) from error
    return protocol.model_validate({name: field for name, field in fields.items() if name != "name"})
