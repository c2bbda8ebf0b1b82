"""The page of all settings, made of the JSON Schema of campaigns: name, type, default and meaning of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from editors import EDITORS, get_editor
from evaluators.protocols import PROTOCOLS
from evaluators.scoring.measures import MEASURES
from jobs.settings import Schema, campaign_schema

HEAD = """# All settings

Made by `editfleet schema --markdown` of the strings that stand under the settings in the code, where units and sources
are given; "ours" marks what no paper or published code says. What has no default must be given. An editor's defaults
are those of its method: presets for known models (`editors/configs/*.yaml`, each with its source) stand over them, and
a campaign's `config` stands over both.
"""
PARTS = {"models": "ModelSpec", "datasets": "DatasetEntry", "editors": "EditorSpec", "search": "SearchSpec"}
WEIGHTS = {True: "Its edits are changes of weights: `editfleet export` writes them.",
           False: "Its edits are no changes of weights: they keep to patches, and `editfleet export` refuses them."}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
HUGE = 2**53  # bounds that mean nothing to people


class Section(NamedTuple):
    """A mapping in a campaign's file: where it stands, what it is, and its fields as JSON Schema."""

    title: str
    about: str
    fields: Mapping[str, Schema]
    required: tuple[str, ...] = ()
    default: str = "none"


def reference() -> str:
    """The page, as Markdown."""
    schema = campaign_schema()
    return (HEAD + "".join(map(_page, sections(schema)))).rstrip()


def undocumented() -> list[str]:
    """The settings without a string that says what they are."""
    return [f"{section.title}: {name}" for section in sections(campaign_schema())
            for name, field in section.fields.items() if not field.get("description")]


def sections(schema: Schema) -> Iterator[Section]:
    """All mappings in a campaign: itself, its parts, its protocols, its measures and its editors' settings."""
    definitions, fields = schema["$defs"], schema["properties"]
    parts = {**PARTS, **{name: field["$ref"].rpartition("/")[2] for name, field in fields.items() if "$ref" in field}}
    campaign = _section("A campaign", {**schema, **schema["then"]})  # unless it includes another
    yield campaign._replace(fields={name: _described(field, definitions) for name, field in fields.items()})
    for name, definition in parts.items():
        yield _section(f"`{name}`", definitions[definition])
    for name, choice in zip(PROTOCOLS, fields["protocols"]["items"]["anyOf"][1:], strict=True):
        yield _section(f"`protocols`: `{name}`", choice)
    for name in MEASURES:
        yield _section(f"`measures`: `{name}`", fields["measures"]["properties"][name]["anyOf"][1])
    for name in EDITORS:
        first, *inner = _of_editor(f"`config` of `{name}`", definitions[f"config of {name}"], definitions)
        yield first._replace(about=f"{first.about} {WEIGHTS[get_editor(name).in_weights]}")
        yield from inner


def _of_editor(title: str, settings: Schema, definitions: Schema) -> Iterator[Section]:
    """The settings of an editor, and those that are mappings of settings themselves."""
    about = settings.get("description", "") if settings["properties"] else "It has no settings."
    yield _section(title, settings)._replace(about=about, default="the preset's")
    for name, field in settings["properties"].items():
        for choice in (field, *field.get("anyOf", ()), *field.get("allOf", ())):
            if "$ref" in choice:
                yield from _of_editor(f"{title}: `{name}`", definitions[choice["$ref"].rpartition("/")[2]], definitions)


def _section(title: str, part: Schema) -> Section:
    fields = {name: field for name, field in part.get("properties", {}).items() if "const" not in field}
    return Section(title, part.get("description", ""), fields, tuple(part.get("required", ())))


def _described(field: Schema, definitions: Schema) -> Schema:
    """A field whose string is that of what it refers to has it there alone."""
    about = definitions[field["$ref"].rpartition("/")[2]].get("description") if "$ref" in field else None
    return {"description": about, **field} if about else field


def _page(section: Section) -> str:
    lines = [f"\n## {section.title}\n", _flat(section.about)]
    if section.fields:
        lines += ["", "| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, field in section.fields.items():
        default = "required" if name in section.required else _default(field, section.default)
        cells = (f"`{name}`", _type(field), default, _flat(field.get("description", "")))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _type(field: Schema) -> str:
    """What a value may be, in words."""
    choices = field.get("anyOf") or field.get("allOf") or field.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(_type(choice) for choice in choices if choice.get("type") != "null"))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    match field.get("type"):
        case "array":
            items = field.get("prefixItems")
            of = ", ".join(map(_type, items)) if items else _type(field.get("items", {}))
            return f"list of {of}" if of != "any" else "list"
        case "integer" | "number" as kind:
            bounds = [f"{sign} {field[bound]:g}" for bound, sign in BOUNDS.items()
                      if abs(field.get(bound, HUGE)) < HUGE]
            return " ".join([kind, *bounds])
        case "object":
            return "mapping"
        case None:
            return "mapping" if "$ref" in field else "any"
        case kind:
            return {"string": "text", "boolean": "true or false"}.get(str(kind), str(kind))


def _default(field: Schema, otherwise: str) -> str:
    value: object = field.get("default", otherwise)
    if "$ref" in field:
        return "its defaults"
    if value in (None, "", [], {}, "none"):
        return "none"
    return otherwise if value == otherwise else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _flat(text: str) -> str:
    return " ".join(text.split())
