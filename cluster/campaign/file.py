"""Reads a campaign's YAML file.

Every mistake is an `InputError` that names the file, the line, the wrong value and what would be right.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cluster.campaign.paths import with_paths_from
from cluster.campaign.spec import Campaign, Location, SourceFile
from editors.core.errors import QUOTED, InputError, quoted, unknown
from editors.core.files import expanded
from editors.core.places import scrubbed
from editors.core.printable import printable

MOST_BYTES = 4_000_000  # of a campaign's file; parsing takes seconds from there on
MOST_VALUES = 100_000  # in a campaign, with those that stand for others (`*name`) counted as often as they are used
# What YAML 1.1 takes for a number and nobody else does: 010 is 8, and 1:30 is 90.
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what YAML can spell
ODD_NUMBER = re.compile(r"[-+]?0[0-7_]+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


def load_campaign(path: Path | str, *, scale: str | None = None, data: str | None = None) -> Campaign:
    """Reads a campaign file. Paths in it may be relative to its own folder.

    `scale` names one of the file's `scales`, whose fields replace the campaign's; `data` is put in the place of its
    `data`. Raises `InputError` for every mistake.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise InputError(f"'{path}' has {size:,} bytes, and a campaign at most {MOST_BYTES:,}; is it a data set?")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read campaign '{path}': {getattr(error, 'strerror', None) or error}") from error
    fields, source = _scaled(*parse_yaml(text, str(path)), scale)
    if data is not None and isinstance(fields, dict):
        fields = {**fields, "data": os.path.realpath(expanded(data)) if "://" not in data else data}
    try:
        campaign = Campaign.model_validate(fields)
    except ValidationError as error:
        raise InputError("\n".join(f"{source.where(detail['loc'])}: {_explain(detail)}"
                                   for detail in _told(error.errors()))) from None
    campaign._source = source
    try:
        return with_paths_from(path.parent, campaign)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _scaled(fields: Any, source: SourceFile, scale: str | None) -> tuple[Any, SourceFile]:
    """The fields with those of one of the `scales` in their place, each still on its line."""
    if not isinstance(fields, dict):
        return fields, source
    fields = dict(fields)
    scales = fields.pop("scales", {})
    if not (isinstance(scales, dict) and all(isinstance(changes, dict) for changes in scales.values())):
        raise InputError(f"{source.where(('scales',))}: expected a mapping from names to the fields they change")
    if scale is None:
        return fields, source
    if scale not in scales:
        raise InputError(f"{source.file}: {unknown('scale', scale, scales)}")
    changes, prefix = scales[scale], ("scales", scale)
    kept = {place: line for place, line in source.lines.items() if not place or place[0] not in changes}
    moved = {place[2:]: line for place, line in source.lines.items() if place[:2] == prefix and len(place) > 2}
    return {**fields, **changes}, SourceFile(source.file, kept | moved)


def parse_yaml(text: str, file: str) -> tuple[Any, SourceFile]:
    """YAML with the line of every value; the same key twice is an error, where plain YAML would keep the last. Raises
    `InputError`, with `file` in it."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{file} is empty; a campaign needs name, models, datasets and editors")
        lines = dict(islice(_lines(node, file), MOST_VALUES + 1))
        if len(lines) > MOST_VALUES:
            raise InputError(f"{file} has more than {MOST_VALUES:,} values, those that `*name` repeats among them")
        source = SourceFile(file, lines)
        return loader.construct_document(node), source
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{file}{place}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date that does not exist
        raise InputError(f"{file}: not valid YAML: {error}") from error


def _lines(node: yaml.Node, file: str, at: Location = ()) -> Iterator[tuple[Location, int]]:
    if not at:
        yield at, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{file}, line {line}: a field's name must be a word, not a list or a mapping")
            if key.value in seen:
                raise InputError(f"{file}, line {line}: '{key.value}' is written twice")
            seen.add(key.value)
            yield (*at, key.value), line
            yield from _lines(value, file, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*at, number), value.start_mark.line + 1
            yield from _lines(value, file, (*at, number))
    elif strange := NO_TEXT.search(node.value):
        raise InputError(f"{file}, line {node.start_mark.line + 1}: {quoted(node.value)} has the character "
                         f"U+{ord(strange[0]):04X}, which no name, path or text can have")
    elif node.tag in NUMBERS and ODD_NUMBER.fullmatch(node.value):
        raise InputError(f"{file}, line {node.start_mark.line + 1}: YAML reads {node.value} as another number, in "
                         "octal or base 60; write it in plain digits, or a name in quotes")


def _told(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without those that only follow from others: a list is too short because what is in it is wrong."""
    places = [detail["loc"] for detail in details]
    return [detail for detail in details if detail["type"] != "too_short" or not any(
        place != detail["loc"] and place[: len(detail["loc"])] == detail["loc"] for place in places)]


def _explain(detail: ErrorDetails) -> str:
    """One validation error in the words of whoever wrote the file."""
    match detail["type"]:
        case "missing":
            return "this field is required"
        case "value_error":
            return str(detail["ctx"]["error"])
        case "unknown_field" | "value_error_of_part":
            return detail["msg"]
        case "model_type" | "model_attributes_type":
            return f"expected a mapping, got {_shown(detail['input'])}"
    return f"{detail['msg']}, got {_shown(detail['input'])}"


def _shown(value: object) -> str:
    return printable(scrubbed(repr(value)), QUOTED)
