"""The files that a campaign names: which of them are not there, and where they are published."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from cluster.campaign.source import Location
from cluster.campaign.spec import FILES, Campaign, StatisticsSpec
from editors.core.errors import InputError
from editors.core.files import expanded
from editors.core.places import shown
from evaluators.datasets import TESTBED_CORPUS


def is_missing(path: str) -> bool:
    """Whether a path, which is no URL, leads nowhere."""
    return "://" not in path and not os.path.exists(expanded(path))


class NamedFile(NamedTuple):
    """A local file that a campaign names. Every plan reads one that is `needed`; of the others, some editors do."""

    location: Location
    path: str
    needed: bool

    @property
    def missing(self) -> bool:
        return is_missing(self.path)


def named_files(campaign: Campaign) -> Iterator[NamedFile]:
    """The data that a campaign names: files of data sets, and the texts of measures and statistics."""
    for number, data in enumerate(campaign.datasets):
        for field in FILES:
            path = getattr(data, field)
            if path is not None and not (data.hub and field == "train"):  # there a split
                yield NamedFile(("datasets", number, field), path, needed=field != "train")
    for measure in campaign.measures:
        paths: list[str] = []

        def see(path: str, paths: list[str] = paths) -> str:
            paths.append(path)
            return path

        measure.located(see)
        yield from (NamedFile(("measures", measure.name), path, needed=True) for path in paths
                    if path != TESTBED_CORPUS)
    texts: list[tuple[Location, StatisticsSpec | None]] = [((), campaign.statistics)]
    texts += [(("editors", number), editor.statistics) for number, editor in enumerate(campaign.editors)]
    for owner, text in texts:
        if text is not None and text.corpus != TESTBED_CORPUS:
            yield NamedFile((*owner, "statistics", "corpus"), text.corpus, needed=False)


@contextmanager
def missing_files_told(campaign: Campaign) -> Iterator[None]:
    """Plan the campaign inside: an `InputError` for a file that is not there tells of all that are not, and where they
    are published. For a file that every plan needs it is raised at once."""
    missing = [(part, file) for part in campaign.members for file in named_files(part) if file.missing]
    if any(file.needed for _, file in missing):
        raise InputError(_tell(campaign, missing))
    try:
        yield
    except InputError as error:
        if any(f"'{file.path}'" in str(error) for _, file in missing):
            raise InputError(_tell(campaign, missing)) from error
        raise


def _tell(campaign: Campaign, missing: list[tuple[Campaign, NamedFile]]) -> str:
    first = {file.path: (part, file) for part, file in reversed(missing)}  # parts may name the same
    lines = [f"{part.where(*file.location)}: there is no file '{file.path}'" for part, file in missing
             if first[file.path] == (part, file)]
    published: dict[str, list[str]] = defaultdict(list)
    for part, file in missing:
        for name, where in part.published.items():
            if f"/{file.path}".endswith(f"/{name}") and name not in published[where]:
                published[where].append(name)
    if published:
        lines += ["Where they are published:",
                  *(f"  {', '.join(names)}: {shown(where)}" for where, names in published.items())]
    start = shown(campaign.data) if campaign.data else "the campaign's own folder"
    return "\n".join([*lines, f"Paths start at {start}; `--data FOLDER` names the folder that has the files"])
