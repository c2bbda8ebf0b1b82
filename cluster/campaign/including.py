"""`include:` has a campaign begin as what other files say: their fields, unless it has its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.campaign.reading import Reader
from cluster.campaign.source import Location, Source, Written
from editors.core.errors import InputError, quoted, unknown

DEEPEST = 10  # files that include each other
MERGED = ("scales", "published")  # fields whose entries are kept apart by name


def read_whole(reader: Reader, path: Path, shipped: Mapping[str, Path], above: tuple[Path, ...] = ()) -> Written:
    """A file with those that it includes. Raises `InputError`; what is wrong with a file names that file."""
    written = reader.read(path)
    if not isinstance(written.fields, dict) or "include" not in written.fields:
        return written
    fields = dict(written.fields)
    names = fields.pop("include")
    source = Source(str(path), written.origins)
    listed = isinstance(names, list)
    if listed and not names:
        raise InputError(f"{source.where(('include',))}: the list is empty; leave it out")
    whole = Written({}, {})
    for number, name in enumerate(names if listed else [names]):
        place = source.where(("include", number) if listed else ("include",))
        file = _find(name, path.parent, shipped, place)
        chain = (*above, path)
        if any(os.path.samefile(file, each) for each in chain):
            raise InputError(f"{place}: files include each other in a circle: {' -> '.join(map(str, [*chain, file]))}")
        if len(chain) >= DEEPEST:
            raise InputError(f"{place}: more than {DEEPEST} files include each other, one the next")
        included = read_whole(reader, file, shipped, chain)
        if not isinstance(included.fields, dict):
            raise InputError(f"{place}: '{file}' is no campaign, nor a part of one: expected a mapping")
        whole = _over(included, whole)
    return _over(Written(fields, written.origins), whole)


def _find(name: Any, folder: Path, shipped: Mapping[str, Path], place: str) -> Path:
    """A file from the folder of the one that includes it, or a shipped campaign by its name."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{place}: expected a file, or the name of a shipped campaign, or a list of them")
    path = folder / Path(name).expanduser()
    if os.path.isfile(path):  # what is too long for a file's name is none; `Path.is_file` raises
        return path
    if name in shipped:
        return shipped[name]
    if Path(name).name != name or Path(name).suffix:
        raise InputError(f"{place}: there is no campaign file {quoted(str(path))}")
    raise InputError(f"{place}: {unknown('campaign', name, shipped)}")


def _over(top: Written, base: Written) -> Written:
    """The fields of both; where both have one, that of `top`."""
    merged = {part: base.fields[part] | top.fields[part] for part in MERGED
              if isinstance(base.fields.get(part), dict) and isinstance(top.fields.get(part), dict)}

    def stays(place: Location) -> bool:
        if not place or place[0] not in top.fields:
            return True
        return place[0] in merged and len(place) > 1 and place[1] not in top.fields[place[0]]

    kept = {place: origin for place, origin in base.origins.items() if stays(place)}
    return Written({**base.fields, **top.fields, **merged}, {**kept, **top.origins})
