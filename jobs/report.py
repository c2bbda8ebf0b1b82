"""`editfleet report`: the results in a store, as a table or for programs.

    python -m jobs.report results/quickstart --format json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.plan.known import told
from cluster.store.errors import Damaged
from cluster.store.store import Store
from editors.core.errors import InputError
from editors.core.printable import printable
from evaluators.files import make_folder, write_text
from evaluators.report.compare import compare
from evaluators.report.costs import costs, parted
from evaluators.report.curves import sweeps_to_svg
from evaluators.report.figure import to_svg
from evaluators.report.grids import Grid, grids_to_markdown, grids_to_rich
from evaluators.report.sweeps import Point, points_to_json_lines, sweep_grids
from evaluators.report.tables import Rows, grids, summarise, to_json_lines
from evaluators.report.views import View
from jobs.console import choose_campaign, console, exit_codes, shorten, warn


def report(
    store: Annotated[str, typer.Argument(help="The folder or URL given to `run` as --out.")],
    format: Annotated[Literal["table", "json", "markdown"], typer.Option(
        help="A table; JSON, one object a line with every metric; or Markdown.")] = "table",
    every: Annotated[bool, typer.Option("--all", help="Show every metric, not only the main ones.")] = False,
    paper: Annotated[bool, typer.Option(
        "--paper", help="Show the columns of Yao et al. 2023, measured as there, and what is behind them.")] = False,
    versus: Annotated[str | None, typer.Option(
        metavar="EDITOR", help="Show the other editors' differences to this one, on the cases both have.")] = None,
    figure: Annotated[Path | None, typer.Option(help="An SVG file to draw the results into as well.")] = None,
    campaign: Annotated[str | None, typer.Option(help="Which campaign, if not the one that was run last.")] = None,
) -> None:
    """Show the results of a campaign: means, or differences between editors, with 95 % confidence intervals."""
    with exit_codes():
        if figure is not None and versus is not None:
            raise InputError(f"'--figure {figure}' draws results, not differences; leave '--versus {versus}' out")
        if figure is not None and figure.suffix.lower() != ".svg":
            raise InputError(f"'--figure {figure}': the picture is an SVG; call it '{figure.with_suffix('.svg')}'")
        if every and paper:
            raise InputError("'--all' shows every metric, '--paper' the paper's; leave one of them out")
        view: View = "paper" if paper else "all" if every else "main"
        found = Store.open(store)
        for line in shorten(found.strays()):
            warn(printable(line))
        record = choose_campaign(found.place, found.campaigns(), campaign)
        for known in record.known:
            for line in shorten(told(known)):
                warn(line)
        damaged: list[Damaged] = []
        table = found.rows(record.tasks, damaged)
        for line in shorten(sorted(f"{found.place}: {each}; it is left out" for each in damaged)):
            warn(line)
        standing = found.standing(record)  # after reading, which finds what is damaged
        if missing := len(record.tasks) - len(standing.done):
            warn(printable(f"{missing} of {len(record.tasks)} tasks of '{record.name}' are not done"))
        points = [Point(entry.part, entry.name, entry.varies, entry.settings) for entry in record.sweep]
        rows: Rows
        swept = list[Grid]()
        table, spent = parted(table)
        if versus is None:
            summaries = summarise(table)
            rows = [*summaries, *costs(spent)]
            swept = list(sweep_grids(summaries, points, view))
            if figure is not None:
                make_folder(figure.parent)
                drawn: View = "paper" if paper else "main"
                write_text(figure, sweeps_to_svg(summaries, points, drawn) if points else to_svg(summaries, drawn))
        else:
            rows, notes = compare(table, versus)
            for note in shorten(notes):
                warn(printable(note))
        match format:
            case "json":
                typer.echo(to_json_lines(rows) + points_to_json_lines(points), nl=False)
            case "markdown":
                typer.echo(grids_to_markdown([*grids(rows, view), *swept]), nl=False)
            case "table":
                for shown in grids_to_rich([*grids(rows, view), *swept]):
                    console().print(shown)


if __name__ == "__main__":
    from jobs.cli import main

    main("report")
