"""`editfleet report`: the results in one store or several, as a table or for programs.

    python -m jobs.report results/quickstart --format json
    python -m jobs.report results/table2 results/table3 --paper --format latex --out tables.tex
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster.plan.known import told
from cluster.store.merging import Merged, letters, merge
from cluster.store.source import Source
from editors.core.errors import InputError
from editors.core.printable import printable
from evaluators.files import make_folder, write_text
from evaluators.report.compare import Comparison, compare
from evaluators.report.costs import Cost, costs
from evaluators.report.drawing import check_figure, write_figure
from evaluators.report.grids import Grid, grids_to_markdown, grids_to_rich, grids_to_text
from evaluators.report.latex import grids_to_latex
from evaluators.report.paper_tables import TABLES, Fill, paper_grids
from evaluators.report.pictures import picture
from evaluators.report.sheets import to_csv
from evaluators.report.sources import source_grids
from evaluators.report.sweeps import Point, points_to_json_lines, sweep_grids
from evaluators.report.tables import Rows, Summary, corrected, grids, summarise, to_json_lines
from evaluators.report.views import View
from jobs.console import console, exit_codes, shipped_campaigns, shorten, warn
from jobs.sources import read_source

Form = Literal["table", "json", "markdown", "latex", "csv", "html"]
FILES: dict[Form, str] = {"table": "report.txt", "json": "report.jsonl", "markdown": "report.md", "latex": "report.tex",
                          "csv": "report.csv", "html": "index.html"}


def report(
    stores: Annotated[list[str], typer.Argument(
        metavar="STORE...", help="The folder or URL given to `run` as --out; of several, the rows of all.")],
    format: Annotated[Form, typer.Option(
        help="A table; JSON, one object a line with every metric; Markdown; LaTeX by booktabs; CSV, a line for "
             "every metric; or an HTML page to look at, which has all views and single cases.")] = "table",
    out: Annotated[Path | None, typer.Option(
        metavar="FILE|FOLDER", help="Where to write that to, instead of showing it; in a folder, report.tex or the "
                                    "like; of HTML always a folder.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every metric, not only the main ones.")] = False,
    paper: Annotated[bool, typer.Option(
        "--paper", help="Show the tables of Yao et al. 2023, measured as there, beside the paper's numbers where model "
                        "and data are the paper's; and how to make what is missing.")] = False,
    versus: Annotated[str | None, typer.Option(
        metavar="EDITOR", help="Show the other editors' differences to this one, on the cases both have.")] = None,
    figure: Annotated[Path | None, typer.Option(
        help="An SVG, PNG or PDF file, by its ending, to draw the results into as well.")] = None,
    campaign: Annotated[str | None, typer.Option(help="Which campaign, if not the one that was run last.")] = None,
) -> None:
    """Show the results of a campaign: means, or differences between editors, with 95 % confidence intervals."""
    with exit_codes():
        if figure is not None and versus is not None:
            raise InputError(f"'--figure {figure}' draws results, not differences; leave '--versus {versus}' out")
        if figure is not None:
            check_figure(figure)
        if every and paper:
            raise InputError("'--all' shows every metric, '--paper' the paper's; leave one of them out")
        if format == "html" and out is None:
            raise InputError("'--format html' needs the folder of the page: add '--out FOLDER'")
        if format == "html" and (versus or every or paper or figure):
            raise InputError("a page has all views and figures: leave '--versus', '--all', '--paper' and '--figure' "
                             "out")
        view: View = "paper" if paper else "all" if every else "main"
        sources = _read(stores, campaign)
        merged = merge(sources)
        for note in shorten(merged.notes):
            warn(note)
        points = [Point(entry.part, entry.name, entry.varies, entry.settings) for entry in merged.sweep]
        if format == "html" and out is not None:
            from jobs.paging import write_report

            typer.echo(str(write_report(out, sources, merged, points)))
            return
        rows, tables = (_results(merged, points, view, _fill(sources), figure) if versus is None
                        else _differences(merged, versus, view))
        _show(rows, tables, points, view, format, None if out is None else _file(out, format))


def _read(stores: Sequence[str], campaign: str | None) -> list[Source]:
    """A campaign of each store; says what is damaged in each, and what is not done."""
    sources, several = list[Source](), len(stores) > 1
    for letter, place in zip(letters(len(stores)), stores, strict=True):
        source = read_source(letter, place, campaign)
        for known in source.record.known:
            for line in shorten(told(known)):
                warn(line)
        sources.append(source)
        if several:
            warn(printable(f"{letter}: {source.store.place}, campaign '{source.record.name}'"))
    for source in sources:
        if undone := source.undone:
            elsewhere = sum(any(task in other.standing.done for other in sources) for task in undone)
            warn(printable((f"{source.letter}: " if several else "")
                           + f"{len(undone)} of {len(source.record.tasks)} tasks of '{source.record.name}' are not done"
                           + (f"; other stores have {elsewhere} of them" if elsewhere else "")))
    return sources


def _results(merged: Merged, points: Sequence[Point], view: View, fill: Fill,
             figure: Path | None) -> tuple[Rows, list[Grid]]:
    summaries, spent = summarise(merged.scores), costs(merged.costs)
    rows: list[Summary | Comparison | Cost] = [*summaries, *spent]
    if figure is not None:
        make_folder(figure.parent)
        write_figure(figure, picture(summaries, spent, points, "paper" if view == "paper" else "main"))
    usual = paper_grids([*summaries, *spent], fill) if view == "paper" else grids(rows, view)
    more = source_grids(summaries) if view == "all" else ()
    return rows, [*usual, *more, *sweep_grids(summaries, points, view)]


def _differences(merged: Merged, versus: str, view: View) -> tuple[Rows, list[Grid]]:
    found, notes = compare(merged.scores, versus)
    for note in shorten(notes):
        warn(note)
    rows = corrected(found, view)
    return rows, grids(rows, view)


def _show(rows: Rows, tables: Sequence[Grid], points: Sequence[Point], view: View, form: Form,
          file: Path | None) -> None:
    """Writes a form of the results to a file, or to standard output."""
    if form == "table" and file is None:
        for shown in grids_to_rich(tables):
            console().print(shown)
        return
    text = {"table": lambda: grids_to_text(tables), "markdown": lambda: grids_to_markdown(tables),
            "latex": lambda: grids_to_latex(tables), "csv": lambda: to_csv(rows, view),
            "json": lambda: to_json_lines(rows) + points_to_json_lines(points)}[form]()
    if file is None:
        typer.echo(text, nl=False)
    else:
        make_folder(file.parent)
        write_text(file, text)


def _file(out: Path, form: Form) -> Path:
    return out / FILES[form] if out.is_dir() else out


def _fill(sources: Sequence[Source]) -> Fill:
    """The commands that would make what the paper's tables lack: the rest of these campaigns, and the shipped ones."""
    names = {source.record.name for source in sources}
    rest = [_command(source, source.record.name) for source in sources if source.undone]
    return {table: rest + ([] if names & {table, "paper"} else [_command(sources[0], table)]) for table in TABLES}


def _command(source: Source, campaign: str) -> str:
    """How to run a campaign into a source's store: the paper's on the built-in models, where that has these, too."""
    built_in = any(data.name.startswith("testbed") for data in source.record.datasets)
    of_paper = campaign == "paper" or campaign.startswith(("table", "figure"))
    shipped = campaign in shipped_campaigns()
    more = "" if not (shipped and of_paper) else " --scale testbed" if built_in else " --data FOLDER"
    name = shlex.quote(campaign) if shipped else f"FILE (the file of campaign '{campaign}')"
    return f"editfleet run {name}{more} --out {shlex.quote(str(source.store.place))}"


if __name__ == "__main__":
    from jobs.cli import main

    main("report")
