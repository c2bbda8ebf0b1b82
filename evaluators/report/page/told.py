"""How far a campaign is, and how its results came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from editors.core.printable import printable_lines, shortened
from evaluators.report.page.about import About, Trouble
from evaluators.report.page.blocks import Block, Cell, Grid, Listing, Note, Section, name

SHOWN = 100  # failures, each with its reason
LINES = 30  # of a reason
MOST = 100_000  # characters of a campaign file


def standing(about: About) -> Section:
    """What is done, and the command that does the rest."""
    rows = [[name(each.kind), Cell(f"{each.done:,}"), Cell(f"{each.planned:,}"), Cell(f"{each.failed:,}")]
            for each in about.progress]
    blocks: list[Block] = []
    if about.running:
        blocks.append(Note(f"It runs just now: {about.running}. This page shows what was done by {about.read_at}."))
    if about.missing:
        blocks.append(Note(f"{about.missing:,} of {sum(each.planned for each in about.progress):,} tasks are not done: "
                           "what follows is of the others.", about.command))
    if rows:
        blocks.append(Grid("Tasks of the campaign", ["tasks", "done", "planned", "failed when last tried"], rows))
    if about.failures:
        blocks.append(Note(f"{len(about.failures)} tasks failed; the reasons stand under Provenance.", about.command))
    return Section("standing", "How far it is", "Progress", blocks=blocks)


def provenance(about: About) -> Section:
    """The campaign, data, models, versions and devices, and what failed."""
    facts = {"store": about.places, "campaign": about.campaign, "digest": about.digest, "last run": about.started,
             "this page was made": about.read_at, **about.tags}
    blocks: list[Block] = [_pairs("Campaign", {key: value for key, value in facts.items() if value}),
                           *(Listing(f"Campaign file of {campaign}, as it was read",
                                     printable_lines(shortened(text, MOST))) for campaign, text in about.texts.items())]
    if about.models:
        heads = list(dict.fromkeys(key for model in about.models for key in model))
        blocks.append(Grid("Models", heads, [[name(model.get(head, "-")) for head in heads] for model in about.models]))
    if about.datasets:
        blocks.append(Grid("Data sets", ["data set", "cases", "digest"],
                           [[name(data), Cell(f"{cases:,}"), Cell(digest or "-")]
                            for data, cases, digest in about.datasets]))
    if about.versions:
        blocks.append(_pairs("Versions", about.versions))
    if about.devices:
        blocks.append(_pairs("Devices", {device: f"{tasks:,} tasks" for device, tasks in about.devices.items()}))
    if about.settings:
        blocks.append(Grid("Methods and their settings", ["editor", "settings"],
                           [[name(editor), Cell(settings)] for editor, settings in about.settings], folded=True))
    blocks += _troubles("Tasks that failed", about.failures)
    blocks += _troubles("Cases that could not be edited or scored", about.failed_cases)
    blocks += _troubles("Records that were skipped", about.skipped)
    blocks += [Note(note) for note in about.notes]
    return Section("provenance", "Provenance", "Provenance", "What these results were made of and with.", blocks)


def _pairs(caption: str, facts: Mapping[str, str]) -> Grid:
    return Grid(caption, ["what", "is"], [[name(key), Cell(str(value))] for key, value in facts.items()])


def _troubles(caption: str, troubles: Sequence[Trouble]) -> list[Block]:
    if not troubles:
        return []
    more = f"The first {SHOWN} of {len(troubles):,}." if len(troubles) > SHOWN else ""
    return [Grid(f"{caption}: {len(troubles):,}", ["which", "reason", "tasks"],
                 [[name(each.what), Cell(each.summary, _lines(each)),
                   Cell(str(each.tasks))] for each in troubles[:SHOWN]], note=more, folded=len(troubles) > 5)]


def _lines(trouble: Trouble) -> list[str]:
    """The reason in full, unless that is its summary: of a long one, its end."""
    lines = trouble.reason.strip().splitlines()
    return lines[-LINES:] if len(lines) > 1 else []
