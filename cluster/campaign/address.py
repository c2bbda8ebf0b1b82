"""What `--set` and `sweep` name: `editors.rome.layer`, a setting of an entry, or `chunk`, a field of the campaign."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from cluster.campaign.source import Location
from cluster.campaign.spec import Campaign, EditorSpec
from editors.core.errors import InputError, quoted, unknown

PARTS = ("models", "datasets", "editors", "protocols")  # lists of entries that have names
FIELDS = (*Campaign.model_fields, "sweep")
QUOTES = "\"'"


class Place(NamedTuple):
    """Where an address leads: an entry, by its part and number, or the campaign; and the fields from there on."""

    entry: tuple[str, int] | None
    steps: tuple[str, ...]

    @property
    def location(self) -> Location:
        return (*(self.entry or ()), *self.steps)


def places(address: str, fields: dict[str, Any]) -> list[Place]:
    """Where an address leads in a campaign. It is one place, but for a method's name that several editors have.

    Raises `InputError` for a name or field that is not there.
    """
    part, dot, rest = address.partition(".")
    if part not in FIELDS:
        raise unknown("field", part, FIELDS)
    if part == "sweep":  # whose keys are addresses
        return [Place(None, (part, rest) if rest else (part,))]
    if part not in PARTS or not dot:
        return [Place(None, _steps(address, address))]
    names = [name for _, name, label in _named(fields, part) for name in (name, label)]
    name, rest = _name(rest, names)
    labelled = [number for number, _, label in _named(fields, part) if label == name]
    found = labelled or [number for number, given, _ in _named(fields, part) if given == name]
    if not found:
        raise unknown(f"{part.removesuffix('s')} of this campaign", name, filter(None, names))
    if not rest:
        raise InputError(f"{quoted(address)} names no setting; put a dot and its name behind it")
    steps = _steps(rest, address)
    if part == "editors" and steps[0] not in EditorSpec.model_fields:
        steps = ("config", *steps)
    return [Place((part, number), steps) for number in found]


def title(entry: Any) -> str:
    """What tables call an entry as it is written."""
    return str(entry.get("label") or entry["name"]) if isinstance(entry, dict) else str(entry)


def put(fields: Any, location: Location, value: Any) -> Any:
    """The fields with a value in its place. Nothing that others see is changed."""
    if not location:
        return value
    step, *rest = location
    if isinstance(step, int):
        return [*fields[:step], put(as_mapping(fields[step]), tuple(rest), value), *fields[step + 1:]]
    if fields is None or fields is True:  # a measure that is taken, or a mapping that was left empty
        fields = {}
    if not isinstance(fields, dict):
        raise InputError(f"'{step}' cannot be set in {quoted(repr(fields))}, which is no mapping")
    return {**fields, step: put(fields.get(step), tuple(rest), value)}


def as_mapping(entry: Any) -> Any:
    """An entry; a bare name stands for a mapping with only a name."""
    return {"name": entry} if isinstance(entry, str) else entry


def equals_sign(text: str) -> int:
    """Where the first is that is not in quotes; -1 where none is."""
    quote = ""
    for place, char in enumerate(text):
        if char in QUOTES and quote in ("", char):
            # Only a whole name is quoted; elsewhere an apostrophe is one.
            quote = "" if quote else char if text[:place].endswith(".") else ""
        elif char == "=" and not quote:
            return place
    return -1


def _named(fields: dict[str, Any], part: str) -> Iterator[tuple[int, str, str]]:
    """Number, name and label of each entry that is well-formed so far."""
    entries = fields.get(part)
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        match as_mapping(entry):
            case {"name": str(name), "label": str(label)}:
                yield number, name, label
            case {"name": str(name)}:
                yield number, name, ""


def _name(text: str, names: list[str]) -> tuple[str, str]:
    """An entry's name, which may have dots in it or be quoted, and what follows it."""
    if text and text[0] in QUOTES and (end := text.find(text[0], 1)) > 0 and text[end + 1:end + 2] in ("", "."):
        return text[1:end], text[end + 2:]
    fitting = [name for name in names if name and (text == name or text.startswith(f"{name}."))]
    name = max(fitting, key=len) if fitting else text.partition(".")[0]
    return name, text[len(name) + 1:]


def _steps(text: str, address: str) -> tuple[str, ...]:
    steps = tuple(text.split("."))
    if not all(steps):
        raise InputError(f"{quoted(address)} has nothing between two dots, or at its end")
    return steps
