"""Reads a campaign: its file and those it includes, one of its scales, what options set, and its sweep.

Every mistake is an `InputError` that names the file and line, or the option, the wrong value and what would be right.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cluster.campaign.address import equals_sign, places, put
from cluster.campaign.including import read_whole
from cluster.campaign.parts import files_of_parts, named_in
from cluster.campaign.paths import with_whole_paths
from cluster.campaign.reading import Reader
from cluster.campaign.source import Source, Written, below
from cluster.campaign.spec import Campaign, Point
from cluster.campaign.sweep import expand
from editors.core.errors import QUOTED, InputError, unknown
from editors.core.files import expanded
from editors.core.places import scrubbed
from editors.core.printable import printable


def load_campaign(path: Path | str, *, scale: str | None = None, data: str | None = None, settings: Sequence[str] = (),
                  shipped: Mapping[str, Path] | None = None, is_part: bool = False) -> Campaign:
    """Reads a campaign file. Paths in it may be relative to its own folder.

    `scale` names one of the file's `scales`, whose fields replace the campaign's; `data` is put in the place of its
    `data`, and what `settings` say, each ADDRESS=VALUE, in theirs. `shipped` are campaigns that it may include by name.
    One that `is_part` of another need not have that scale, and has no parts. Raises `InputError` for every mistake.
    """
    reader = Reader()
    written = _scaled(read_whole(reader, Path(path), shipped or {}), scale, str(path), optional=is_part)
    points: tuple[Point, ...] = ()
    members: list[Campaign] = []
    told: dict[str, Any] = {}
    if isinstance(written.fields, dict):
        if data is not None:
            whole = data if "://" in data else os.path.realpath(expanded(data))
            written = written._replace(fields={**written.fields, "data": whole})
        for setting in settings:
            written = _set(written, setting, reader)
        told = written.fields
        if written.fields.get("parts") is not None:
            own = Source(str(path), written.origins)
            if is_part:
                raise InputError(f"{own.where(('parts',))}: '{path}' is a part of another campaign, so it has none")
            members = [load_campaign(file, scale=scale, data=data, shipped=shipped, is_part=True)
                       for file in files_of_parts(written.fields, own)]
            written = written._replace(fields={**written.fields, **named_in(members)})
        written, points = expand(written, reader, Source(str(path), written.origins))
    source = Source(str(path), written.origins)
    try:
        campaign = Campaign.model_validate(written.fields)
    except ValidationError as error:
        raise InputError("\n".join(dict.fromkeys(f"{source.where(detail['loc'])}: {_explain(detail)}"
                                                 for detail in _told(error.errors())))) from None
    campaign._source, campaign._points, campaign._written = source, points, told
    workers = {"workers": campaign.workers}  # which part of what a task is: how many threads
    campaign._members = tuple(member.model_copy(update=workers) for member in members)
    try:
        return with_whole_paths(campaign)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _scaled(written: Written, scale: str | None, file: str, optional: bool) -> Written:
    """With the fields of one of the `scales` in their place, each still on its line. `optional`: or as they are, where
    there is no such scale."""
    if not isinstance(written.fields, dict):
        return written
    fields, source = dict(written.fields), Source(file, written.origins)
    scales = fields.pop("scales", {})
    if not (isinstance(scales, dict) and all(isinstance(changes, dict) for changes in scales.values())):
        raise InputError(f"{source.where(('scales',))}: expected a mapping from names to the fields they change")
    if scale is None or (optional and scale not in scales):
        return Written(fields, written.origins)
    if scale not in scales:
        raise InputError(f"{file}: {unknown('scale', scale, map(str, scales))}")
    changes, place = scales[scale], ("scales", scale)
    kept = {location: origin for location, origin in written.origins.items()
            if not location or location[0] not in changes}
    moved = {location: origin for location, origin in below(written.origins, [place])[place].items() if location}
    return Written({**fields, **changes}, {**kept, **moved})


def _set(written: Written, setting: str, reader: Reader) -> Written:
    """With a value in the place that an address names. Raises `InputError`."""
    told = f"--set {printable(scrubbed(setting), QUOTED)}"
    sign = equals_sign(setting)
    if sign < 1:
        raise InputError(f"{told}: expected ADDRESS=VALUE, such as editors.rome.layer=7 or chunk=50")
    value = reader.read_option(setting[sign + 1:], told)
    fields, origins = written.fields, dict(written.origins)
    with Source(told).at(()):
        for place in places(setting[:sign].strip(), fields):
            depth = len(place.location)
            fields = put(fields, place.location, value.fields)
            origins = {location: origin for location, origin in origins.items() if location[:depth] != place.location}
            origins |= {(*place.location, *rest): origin for rest, origin in value.origins.items()}
    return Written(fields, origins)


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
