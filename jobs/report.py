"""`editfleet report`: the results in a store, as a table or for programs.

    python -m jobs.report results/quickstart --format json
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.store.errors import Damaged
from cluster.store.store import Store
from editors.core.errors import InputError
from editors.core.printable import printable
from evaluators.files import make_folder, write_text
from evaluators.report.compare import compare
from evaluators.report.costs import costs, parted
from evaluators.report.figure import to_svg
from evaluators.report.tables import Rows, summarise, to_json_lines, to_markdown, to_rich_tables
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
        damaged: list[Damaged] = []
        table = found.rows(record.tasks, damaged)
        for line in shorten(sorted(f"{found.place}: {each}; it is left out" for each in damaged)):
            warn(line)
        standing = found.standing(record)  # after reading, which finds what is damaged
        if missing := len(record.tasks) - len(standing.done):
            warn(printable(f"{missing} of {len(record.tasks)} tasks of '{record.name}' are not done"))
        rows: Rows
        table, spent = parted(table)
        if versus is None:
            summaries = summarise(table)
            rows = [*summaries, *costs(spent)]
            if figure is not None:
                make_folder(figure.parent)
                write_text(figure, to_svg(summaries, "paper" if paper else "main"))
        else:
            rows, notes = compare(table, versus)
            for note in shorten(notes):
                warn(printable(note))
        match format:
            case "json":
                typer.echo(to_json_lines(rows), nl=False)
            case "markdown":
                typer.echo(to_markdown(rows, view), nl=False)
            case "table":
                for grid in to_rich_tables(rows, view):
                    console().print(grid)


if __name__ == "__main__":
    from jobs.cli import main

    main("report")
