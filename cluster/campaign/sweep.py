"""`sweep:` makes an entry of a campaign into many, one for each combination of the values that its settings are given.

    sweep:
      editors.ft.lr: [1.0e-4, 5.0e-4]
      editors.ft.steps: [5, 25]            # ft lr=0.0001 steps=5, ft lr=0.0001 steps=25, ...: four in the place of ft
      datasets.testbed-cloze.limit: [10, 100]
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import chain, product
from typing import Any, NamedTuple

from cluster.campaign.address import Place, as_mapping, places, put, title
from cluster.campaign.reading import Reader
from cluster.campaign.source import Location, Origin, Source, Written, below
from cluster.campaign.spec import EditorSpec, Point
from editors.core.errors import QUOTED, InputError, quoted
from editors.core.places import scrubbed
from evaluators.protocols import PROTOCOLS, get_protocol

MOST_POINTS = 1_000  # of a campaign
LISTS = ("seeds", "orders")  # fields of a campaign that list what is varied
OF_EDITORS = ("statistics", "training")  # fields of a campaign that editors may have of their own
GIVEN = ("name", "label")  # by which points are told apart


class Factor(NamedTuple):
    """A setting of an entry with the values that it is to have, and where they are written."""

    steps: tuple[str, ...]
    values: list[Any]
    location: Location

    @property
    def name(self) -> str:
        in_config = self.steps[0] == "config" and len(self.steps) > 1 and self.steps[1] not in EditorSpec.model_fields
        return ".".join(self.steps[1:] if in_config else self.steps)


Grid = list[Factor]  # all combinations of their values
Grids = dict[tuple[str, int], list[Grid]]  # of entries, by part and number; added up


def expand(written: Written, reader: Reader, source: Source) -> tuple[Written, tuple[Point, ...]]:
    """The campaign that its `sweep` stands for, and the entries that come of it. Raises `InputError`."""
    if "sweep" not in written.fields:
        return written, ()
    fields = {name: value for name, value in written.fields.items() if name != "sweep"}
    grids, lists = _read(written.fields["sweep"], fields, source)
    origins = dict(written.origins)
    for location, (values, root) in lists.items():
        fields = put(fields, location, values)
        origins = {place: origin for place, origin in origins.items() if place[:len(location)] != location}
        origins |= {(*location, *rest): origin for rest, origin in below(written.origins, [root])[root].items()}
    _check_size(grids, written, reader, source)
    made: dict[str, dict[int, list[_Made]]] = {}
    for (part, number), of_entry in grids.items():
        made.setdefault(part, {})[number] = list(_points(fields[part][number], part, of_entry, source))
    for part, by_number in made.items():
        fields, origins = _replaced(Written(fields, origins), part, by_number)
    for part in ("datasets", "editors"):
        if "models" in made and isinstance(fields.get(part), list):
            fields[part] = [_kept_to_points(entry, made["models"]) for entry in fields[part]]
    return Written(fields, origins), tuple(each.point for part in made.values() for of in part.values() for each in of)


# --- reading


def _read(sweep: Any, fields: dict[str, Any],
          source: Source) -> tuple[Grids, dict[Location, tuple[list[Any], Location]]]:
    """What is swept of which entry; and the lists of the campaign that are put in the place of its own, each with
    where it is written."""
    root: Location = ("sweep",)
    mappings: list[tuple[Location, Any]] = ([((*root, number), each) for number, each in enumerate(sweep)]
                                            if isinstance(sweep, list) else [(root, sweep)])
    if not mappings:
        raise InputError(f"{source.where(root)}: the list is empty; leave it out")
    grids: Grids = {}
    lists: dict[Location, tuple[list[Any], Location]] = {}
    for at, mapping in mappings:
        if not isinstance(mapping, dict) or not mapping:
            raise InputError(f"{source.where(at)}: expected a mapping from addresses to lists of values, such as "
                             "'editors.ft.lr: [0.001, 0.01]', or a list of such mappings")
        grid: dict[tuple[str, int], Grid] = {}
        for address, values in mapping.items():
            location = (*at, str(address))
            with source.at(location):
                _check_values(values)
                for place in places(str(address), fields):
                    _check_not_set(place, source)
                    if _is_list(place, fields):
                        if place.location in lists:
                            raise InputError("it is swept twice: a list takes the place of the campaign's, once")
                        lists[place.location] = values, location
                    else:
                        entry = _check_place(place)
                        _add(Factor(place.steps, values, location), grid.setdefault(entry, []))
        for entry, factors in grid.items():
            grids.setdefault(entry, []).append(factors)
    return grids, lists


def _check_values(values: Any) -> None:
    if not isinstance(values, list) or not values:
        raise InputError(f"expected a list of one value or more, got {quoted(repr(values))}")
    seen = set[str]()
    for value in map(_plain, values):
        if (key := json.dumps(value, sort_keys=True)) in seen:
            raise InputError(f"{_spelt(value)} is listed twice")
        seen.add(key)


def _is_list(place: Place, fields: dict[str, Any]) -> bool:
    """Whether an address names a list of the campaign, all of which is run anyway."""
    if place.entry is None:
        return len(place.steps) == 1 and place.steps[0] in LISTS
    part, number = place.entry
    if part != "protocols":
        return False
    name = title(fields[part][number])
    numbers = get_protocol(name).numbers if name in PROTOCOLS else None
    if place.steps == (numbers,):
        return True
    raise InputError(f"only the numbers of a protocol can be swept, and '{name}' "
                     + (f"has them in '{numbers}'" if numbers else "has none")
                     + f"; set others with --set protocols.{name}.{'.'.join(place.steps)}=..., and a store each")


def _check_place(place: Place) -> tuple[str, int]:
    """The entry. Raises `InputError` for what is no setting of one by which points can differ."""
    address = ".".join(place.steps)
    if place.entry is None:
        cure = f"run it with --set {address}=..., and a store each"
        if place.steps[0] in OF_EDITORS:
            cure = f"sweep it for an editor, as editors.NAME.{address}, or {cure}"
        raise InputError(f"'{address}' holds for the whole campaign, whose results are told apart by models, data "
                         f"sets, editors and numbers of edits; {cure}")
    if place.steps[0] in GIVEN:
        raise InputError(f"'{place.steps[0]}' cannot be swept: points are named after the values of the others")
    return place.entry


def _check_not_set(place: Place, source: Source) -> None:
    origin = source.origins.get(place.location)
    if origin is not None and origin.line is None:
        raise InputError(f"{origin.tell()} would change nothing, as the sweep has other values; give it those, as "
                         "--set sweep.ADDRESS=[...]")


def _add(factor: Factor, factors: Grid) -> None:
    for other in factors:
        if any(long[:len(short)] == short for long, short in ((other.steps, factor.steps),
                                                              (factor.steps, other.steps))):
            raise InputError(f"'{factor.name}' and '{other.name}' set the same thing; leave one out")
    factors.append(factor)


def _check_size(grids: Grids, written: Written, reader: Reader, source: Source) -> None:
    """Before points are made: there may be too many to make."""
    counts = {entry: sum(math.prod(len(factor.values) for factor in grid) for grid in of_entry)
              for entry, of_entry in grids.items()}
    with source.at(("sweep",)):
        if (points := sum(counts.values())) > MOST_POINTS:
            raise InputError(f"these are {points:,} points, and a campaign has {MOST_POINTS:,} at most")
    roots = {entry: [entry, *(factor.location for grid in of_entry for factor in grid)]
             for entry, of_entry in grids.items()}
    sizes = {root: len(found) for root, found in below(written.origins, set(chain(*roots.values()))).items()}
    reader.count(sum(count * sum(sizes[root] for root in roots[entry]) for entry, count in counts.items()),
                 source.where(("sweep",)))


# --- making points


class _Made(NamedTuple):
    """An entry in the place of another; and where the values stand that are its own, by their places in it."""

    point: Point
    entry: dict[str, Any]
    roots: dict[Location, Location]


def _points(entry: Any, part: str, grids: Sequence[Grid], source: Source) -> Iterator[_Made]:
    names = set[str]()
    for grid in grids:
        for numbers in product(*(range(len(factor.values)) for factor in grid)):
            chosen = list(zip(grid, numbers, strict=True))
            settings = {factor.name: _plain(factor.values[number]) for factor, number in chosen}
            name = " ".join([title(entry), *(f"{key}={_spelt(value)}" for key, value in settings.items())])
            with source.at(grid[-1].location):
                _check_name(name, names)
                whole = _apart(as_mapping(entry), part, name)
                for factor, number in chosen:
                    whole = put(whole, factor.steps, factor.values[number])
            names.add(name)
            yield _Made(Point(part, name, title(entry), settings), whole,
                        {factor.steps: (*factor.location, number) for factor, number in chosen})


def _check_name(name: str, others: set[str]) -> None:
    if name in others:
        raise InputError(f"{quoted(name)} comes of two grids; leave it out of one")
    if len(name) > QUOTED:
        raise InputError(f"{quoted(name)} is a name of {len(name):,} characters, for people and tables; write such "
                         "entries out, each with a name of its own")


def _apart(entry: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    """An entry under another name, which means what it did."""
    if part == "editors":
        return {**entry, "label": name}
    if part == "models":
        return {"path": entry["name"], **entry, "name": name}
    located = any(entry.get(field) is not None for field in ("path", "hub", "built_in"))
    return {**entry, "name": name, **({} if located else {"built_in": entry["name"]})}


def _plain(value: Any) -> Any:
    """A value as records keep it and points are compared: `1e-4`, a text to YAML, and 1.0e-4 are the same number."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return scrubbed(value)
        return _plain(number) if math.isfinite(number) else value
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, bool | None):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, int):
        if value.bit_length() > 63:
            raise InputError("a number is too large; the largest is 9223372036854775807")
        return value
    return str(value)  # a date


def _spelt(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# --- putting them in


def _replaced(written: Written, part: str,
              made: dict[int, list[_Made]]) -> tuple[dict[str, Any], dict[Location, Origin]]:
    """The campaign with points in the place of the entries of a part, and every value's origin."""
    entries: list[Any] = []
    roots = {(part, number) for number in range(len(written.fields[part]))} | {
        root for of_entry in made.values() for each in of_entry for root in each.roots.values()}
    found = below(written.origins, roots)
    origins = {place: origin for place, origin in written.origins.items() if place[:1] != (part,) or len(place) == 1}
    for number, entry in enumerate(written.fields[part]):
        for each in made.get(number, [None]):
            origins |= {(part, len(entries), *rest): origin for rest, origin in found[part, number].items()}
            for steps, root in (each.roots if each else {}).items():
                for end in range(1, len(steps)):  # what is around it may be nowhere else
                    origins.setdefault((part, len(entries), *steps[:end]), origins[part, len(entries)])
                origins |= {(part, len(entries), *steps, *rest): origin for rest, origin in found[root].items()}
            entries.append(each.entry if each else entry)
    return {**written.fields, part: entries}, origins


def _kept_to_points(entry: Any, models: dict[int, list[_Made]]) -> Any:
    """An entry that is kept to a model which is swept is kept to all that came of it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("models"), list):
        return entry
    points = {of[0].point.varies: [each.point.name for each in of] for of in models.values()}
    return {**entry, "models": [new for name in entry["models"]
                                for new in (points.get(name, [name]) if isinstance(name, str) else [name])]}
