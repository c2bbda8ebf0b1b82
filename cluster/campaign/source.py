"""Where each value of a campaign was written, for messages and for the paths that start there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from editors.core.errors import InputError
from editors.core.places import scrubbed
from editors.core.printable import CELL, printable

Location = tuple[str | int, ...]


class Origin(NamedTuple):
    """Where a value was written: the file with the line, or an option, which has none; the value's location there; and
    the folder that paths written there start from."""

    file: str
    line: int | None = None
    path: Location = ()
    folder: Path = Path()

    def tell(self, deeper: Location = ()) -> str:
        line = "" if self.line is None else f", line {self.line}"
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{printable(scrubbed(step), CELL)}"
                       for step in (*self.path, *deeper)).lstrip(".")
        return f"{self.file}{line}{', ' + path if path else ''}"

    @property
    def varies(self) -> bool:
        """Whether it puts a value into an entry that was written elsewhere."""
        return self.line is None or self.path[:1] == ("sweep",)


Origins = Mapping[Location, Origin]


class Written(NamedTuple):
    """What somebody wrote, as YAML reads it, with the origins of its values."""

    fields: Any
    origins: Origins


def below(origins: Origins, roots: Collection[Location]) -> dict[Location, dict[Location, Origin]]:
    """For each of some values the origins of it and of all in it, by their locations in that value."""
    found: dict[Location, dict[Location, Origin]] = {root: {} for root in roots}
    for place, origin in origins.items():
        for end in range(len(place) + 1):
            if place[:end] in found:
                found[place[:end]][place[end:]] = origin
    return found


@dataclass(frozen=True)
class Source:
    """What a campaign was read from: its file, and the origin of each of its values."""

    file: str = "campaign"
    origins: Origins = field(default_factory=dict)

    def where(self, location: Location) -> str:
        """Where a value stands, for messages: `study.yaml, line 7, editors[1].config`."""
        origin, deeper = self._nearest(location)
        # Entries of a list are looked at one by one, and what is in a value goes with it.
        inside = {place: each for place, each in below(self.origins, [location])[location].items()
                  if place and isinstance(place[0], str) and each.varies}
        others = [each.tell() for place, each in inside.items() if place[:-1] not in inside]
        return origin.tell(deeper) + (f", with {'; '.join(others)}" if others and not origin.varies else "")

    @contextmanager
    def at(self, location: Location) -> Iterator[None]:
        """Input errors raised inside are reported with their place."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.where((*location, *error.at))}: {error}") from error

    def folder(self, location: Location) -> Path:
        """Where the relative paths start that a value has."""
        return self._nearest(location)[0].folder

    def _nearest(self, location: Location) -> tuple[Origin, Location]:
        """The origin of a value, or of the smallest that it is part of; and what leads on from there."""
        for end in range(len(location), -1, -1):
            if (origin := self.origins.get(location[:end])) is not None:
                return origin, location[end:]
        return Origin(self.file), location
