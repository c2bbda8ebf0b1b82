"""`editfleet diff`: whether two stores hold the same, and what does not.

    python -m jobs.diff results/before results/after
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, get_args

import typer

from cluster.store.comparing import Reasons, SideName, StoresDiffer, What, compare_sides
from cluster.store.errors import StoreError
from cluster.store.source import Source
from editors.core.errors import InputError
from editors.core.printable import in_json, in_markdown
from evaluators.files import finite
from evaluators.report.differences import SIDES, cells_grid, changes_grid
from evaluators.report.grids import Grid, grids_to_markdown, grids_to_rich
from jobs.console import DIFFERENT, console, count, exit_codes, shorten
from jobs.sources import read_source


def diff(
    a: Annotated[str, typer.Argument(help="A store: a folder or URL.")],
    b: Annotated[str, typer.Argument(help="Another store, or the same with --campaign-b.")],
    format: Annotated[Literal["table", "json", "markdown"], typer.Option(
        help="Tables; JSON, one object a line for everything that differs; or Markdown.")] = "table",
    every: Annotated[bool, typer.Option("--all", help="Show every metric, not only the main ones.")] = False,
    tolerance: Annotated[float, typer.Option(min=0.0, help="By how much numbers of the same tasks may differ: of the "
                                             "larger one, where that is above 1.")] = 0.0,
    campaign: Annotated[str | None, typer.Option(help="Which campaign, if not the one that was run last.")] = None,
    campaign_b: Annotated[str | None, typer.Option(help="Which campaign of B, if another than of A.")] = None,
) -> None:
    """Compare the campaigns in two stores: tasks, missing results, and numbers. Ends with 0 where they are the same,
    1 where they differ, 2 where that cannot be told."""
    with exit_codes():
        if not math.isfinite(tolerance):
            raise InputError(f"'--tolerance {tolerance}' is no number that differences can be held against")
        try:
            sides = [read_source(name, place, chosen, f"{name}, ") for name, place, chosen in
                     zip(SIDES, (a, b), (campaign, campaign_b or campaign), strict=True)]
            found = compare_sides(sides[0], sides[1], tolerance)
        except StoreError as error:  # its code says that stores differ
            raise InputError(str(error)) from error
        if format == "json":
            for line in _json_lines(found):
                typer.echo(line)
        else:
            _show(sides, found, every, markdown=format == "markdown")
        if not found.same:
            raise typer.Exit(DIFFERENT)


def _json_lines(found: StoresDiffer) -> Iterator[str]:
    """An object for everything that differs, which says by its `finding` what it is."""
    kinds: dict[str, tuple[Any, ...]] = {"task": found.tasks, "numbers": found.changed, "cell": found.cells}
    for finding, rows in kinds.items():
        for each in rows:
            yield _json_line({"finding": finding, **asdict(each)})
    for reasons in found.reasons:
        cell = {"editor": reasons.cell.editor, **reasons.cell.setting._asdict()} if reasons.cell else None
        yield _json_line({"finding": "reasons", "cell": cell, "told": reasons.told})


def _json_line(value: dict[str, Any]) -> str:
    return in_json(json.dumps(finite(value), ensure_ascii=False))


def _show(sides: list[Source], found: StoresDiffer, every: bool, *, markdown: bool) -> None:
    screen = console()

    def lines(*told: str) -> None:
        for line in told:
            if markdown:
                typer.echo(in_markdown(line) + "  ")
            else:
                screen.print(line, soft_wrap=True)

    def grid(*grids: Grid) -> None:
        if markdown:
            typer.echo(f"\n{grids_to_markdown(grids)}")
        else:
            for table in grids_to_rich(grids):
                screen.print(table)

    lines(*map(_about_side, SIDES, sides))
    if found.tasks:
        grid(_tasks_grid(found))
        lines(*shorten(f"{each.what} in {each.side}: {each.title}{f': {each.reason}' if each.reason else ''}"
                       for each in found.tasks))
    if found.changed:
        titles = {task.id: task.title for task in sides[0].record.tasks}
        grid(changes_grid(found.changed, titles))
    if found.cells:
        grid(cells_grid(found.cells, every))
    for told, about in _by_reason(found.reasons).items():
        lines(*shorten(about), *shorten(f"  {each}" for each in told or ("provenance does not tell why",)))
    same = "They are the same" if found.same else "They differ"
    lines(f"{same}; {count(found.compared, 'task')} compared number by number.")


def _tasks_grid(found: StoresDiffer) -> Grid:
    counts = Counter((each.kind, each.side, each.what) for each in found.tasks)
    kinds = list(dict.fromkeys(each.kind for each in found.tasks))
    heads = [(what, side) for what in get_args(What) for side in get_args(SideName)
             if any(counts[kind, side, what] for kind in kinds)]
    return Grid("tasks that are not the same", ["tasks", *(f"{what} in {side}" for what, side in heads)],
                [[kind, *(str(counts[kind, side, what]) for what, side in heads)] for kind in kinds], 1, "")


def _about_side(name: str, side: Source) -> str:
    record = side.record
    return (f"{name}: {side.store.place}, {record.name} ({record.digest[:8]}), last run "
            f"{record.started:%Y-%m-%d %H:%M} UTC: {len(side.standing.done)} of {len(record.tasks)} tasks done")


def _by_reason(reasons: Sequence[Reasons]) -> dict[tuple[str, ...], list[str]]:
    """What has the same reasons, a line each."""
    found: dict[tuple[str, ...], list[str]] = {}
    for each in reasons:
        found.setdefault(each.told, []).append(_about(each))
    return found


def _about(reasons: Reasons) -> str:
    if reasons.cell is None:
        return "tasks that both have:"
    model, dataset, protocol, edits = reasons.cell.setting
    return f"{reasons.cell.editor} on {model}, {dataset}, {protocol}, {count(edits, 'edit')}:"


if __name__ == "__main__":
    from jobs.cli import main

    main("diff")
