"""A campaign that is made of others: `parts: [table2.yaml, figure6.yaml]`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.campaign.source import Source
from cluster.campaign.spec import Campaign
from editors.core.errors import InputError

OWN = ("name", "parts", "workers", "retries", "published", "data", "tags")  # what such a campaign says itself


def files_of_parts(fields: dict[str, Any], source: Source) -> list[Path]:
    """The files of such a campaign's parts. Raises `InputError` for a field that is theirs, and for a file that is not
    there."""
    for name in fields.keys() - set(OWN):
        raise InputError(f"{source.where((name,))}: a campaign of parts has {', '.join(OWN)}; '{name}' is its parts' "
                         "to say")
    parts = fields["parts"]
    if not isinstance(parts, list) or not parts:
        raise InputError(f"{source.where(('parts',))}: expected a list of campaign files")
    files = []
    for number, part in enumerate(parts):
        place = ("parts", number)
        if not isinstance(part, str) or not os.path.isfile(file := source.folder(place) / part):
            raise InputError(f"{source.where(place)}: there is no campaign file '{source.folder(place) / str(part)}'")
        files.append(file)
    return files


def named_in(members: Sequence[Campaign]) -> dict[str, Any]:
    """What the parts name, for those who list it. What stands behind a name, each part says."""
    def distinct(entries: list[dict[str, str]]) -> list[dict[str, str]]:
        return [entry for number, entry in enumerate(entries) if entry not in entries[:number]]

    return {"models": distinct([{"name": spec.name} for member in members for spec in member.models]),
            "datasets": distinct([{"name": spec.name} for member in members for spec in member.datasets]),
            "editors": distinct([{"name": spec.name, "label": spec.title} for member in members
                                 for spec in member.editors])}
