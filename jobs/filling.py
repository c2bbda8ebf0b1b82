"""The commands that make what a report lacks: the rest of its campaigns, and those that are shipped."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.store.records import CampaignRecord
from cluster.store.source import Source
from evaluators.report.paper_tables import TABLES, Fill
from jobs.console import read_campaign, shipped_campaigns

OF_PAPER = ("table", "figure", "paper")  # what the names of its campaigns begin with
LACKED = ("table4", "figure6", "figure7")  # what a page has a place for, whether the store has it or not


def fill(sources: Sequence[Source]) -> Fill:
    """What would make what the paper's tables lack, by table."""
    names = {source.record.name for source in sources}
    rest = [command(source, source.record.name, as_run(source.record)) for source in sources if source.undone]
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
    name, behind = (shlex.quote(campaign), "") if shipped else ("FILE", f"  # FILE: the file of campaign '{campaign}'")
    out = shlex.quote(near(source.store.place))
    return " ".join(filter(None, ["editfleet run", name, options, "--out", out])) + behind


def as_run(record: CampaignRecord) -> str:
    """The options that make of a shipped campaign the one that was run, so that what is done of it counts: its scale,
    and what else differs. "" where nothing does, or that is not known."""
    if not record.text or record.name not in shipped_campaigns():
        return ""
    ran, shipped = _fields(record.text), _fields(shipped_campaigns()[record.name].read_text(encoding="utf-8"))
    ways = [_way(ran, record.name, scale) for scale in (None, *shipped.get("scales", {}))]
    return shlex.join(min(ways, key=lambda way: len(way[0]))[1])


def _way(ran: Mapping[str, Any], name: str, scale: str | None) -> tuple[dict[str, Any], list[str]]:
    """The fields in which a campaign that was run differs from the shipped one at this scale, and the options that
    make the one of the other."""
    fields = _fields(read_campaign(name, scale, None).text)
    changed = {key: value for key, value in ran.items() if fields.get(key) != value}
    options = ["--scale", scale] if scale else []
    for key, value in changed.items():
        options += (["--data", near(value)] if key == "data" else
                    ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"])
    return changed, options


def _fields(text: str) -> dict[str, Any]:
    """Those of a campaign itself, before its parts."""
    found: dict[str, Any] = next(yaml.safe_load_all(text))
    return found


def near(place: str) -> str:
    """A store's place as one would type it here, which says nothing of the machine where it is below this folder."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place
