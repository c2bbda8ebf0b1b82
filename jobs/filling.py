"""The commands that make what a report lacks: the rest of its campaigns, and those that are shipped."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.store.source import Source
from evaluators.report.paper_tables import TABLES, Fill
from jobs.console import shipped_campaigns

OF_PAPER = ("table", "figure", "paper")  # what the names of its campaigns begin with
LACKED = ("table4", "figure6", "figure7")  # what a page has a place for, whether the store has it or not


def fill(sources: Sequence[Source]) -> Fill:
    """What would make what the paper's tables lack, by table."""
    names = {source.record.name for source in sources}
    rest = [command(source, source.record.name) for source in sources if source.undone]
    return {table: rest + ([] if names & {table, "paper"} else [command(sources[0], table)]) for table in TABLES}


def lacked(source: Source) -> Mapping[str, str]:
    """What would make what a page lacks, by campaign; `table2` on the paper's own data."""
    return {"table2": command(source, "table2", "--data FOLDER"), **{name: command(source, name) for name in LACKED}}


def command(source: Source, campaign: str, options: str = "") -> str:
    """How to run a campaign into a source's store: the paper's, without `options`, on the built-in models, where the
    source has these, too."""
    shipped = campaign in shipped_campaigns()
    if shipped and campaign.startswith(OF_PAPER) and not options:
        built_in = any(data.name.startswith("testbed") for data in source.record.datasets)
        options = "--scale testbed" if built_in else "--data FOLDER"
    name = shlex.quote(campaign) if shipped else f"FILE (the file of campaign '{campaign}')"
    return " ".join(filter(None, ["editfleet run", name, options, "--out", shlex.quote(near(source.store.place))]))


def near(place: str) -> str:
    """A store's place as one would type it here, which says nothing of the machine where it is below this folder."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place
