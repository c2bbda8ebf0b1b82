"""`editfleet report`: the results in one store or several, as a table or for programs.

    python -m jobs.report results/quickstart --format json
    python -m jobs.report results/table2 results/table3 --paper --format latex --out tables.tex
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

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
from evaluators.report.grids import Grid, grids_to_markdown, grids_to_text, show_grids
from evaluators.report.latex import grids_to_latex
from evaluators.report.paper_tables import Fill, paper_grids
from evaluators.report.pictures import picture
from evaluators.report.sheets import to_csv
from evaluators.report.sources import source_grids
from evaluators.report.sweeps import Point, points_to_json_lines, sweep_grids
from evaluators.report.tables import Rows, Summary, corrected, grids, summarise, to_json_lines
from evaluators.report.views import View
from jobs.console import console, exit_codes, shorten, warn
from jobs.filling import fill
from jobs.sources import read_source

Form = Literal["table", "json", "markdown", "latex", "csv", "html"]
FILES: dict[Form, str] = {"table": "report.txt", "json": "report.jsonl", "markdown": "report.md", "latex": "report.tex",
                          "csv": "report.csv", "html": "index.html"}


class Told(NamedTuple):
    """A report that has no form yet."""

    tables: Sequence[Grid]
    to_csv: Callable[[], str]
    to_json: Callable[[], str]


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
    page: Annotated[bool, typer.Option(
        "--page", help="Show the tables (and draw the figures) of the HTML page: what methods need, locality by "
                       "source, by target and by relation, costs against quality, streams, every editor against "
                       "every other; as JSON also how the results came about.")] = False,
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
        if format == "html" and (versus or every or paper or figure or page):
            raise InputError("a page has all views and figures: leave '--versus', '--all', '--paper', '--page' and "
                             "'--figure' out")
        if page and (versus or every):
            raise InputError("'--page' shows the page's tables: leave '--versus' and '--all' out")
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
        found = (_of_page(sources, merged, points, view, figure) if page
                 else _results(merged, points, view, fill(sources), figure) if versus is None
                 else _differences(merged, versus, points, view))
        _show(found, format, None if out is None else _file(out, format))


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


def _results(merged: Merged, points: Sequence[Point], view: View, lacking: Fill, figure: Path | None) -> Told:
    summaries, spent = summarise(merged.scores), costs(merged.costs)
    rows: list[Summary | Comparison | Cost] = [*summaries, *spent]
    if figure is not None:
        make_folder(figure.parent)
        write_figure(figure, picture(summaries, spent, points, "paper" if view == "paper" else "main"))
    usual = paper_grids([*summaries, *spent], lacking) if view == "paper" else grids(rows, view)
    more = source_grids(summaries) if view == "all" else ()
    return _told(rows, [*usual, *more, *sweep_grids(summaries, points, view)], points, view)


def _differences(merged: Merged, versus: str, points: Sequence[Point], view: View) -> Told:
    found, notes = compare(merged.scores, versus)
    for note in shorten(notes):
        warn(note)
    rows = corrected(found, view)
    return _told(rows, grids(rows, view), points, view)


def _told(rows: Rows, tables: Sequence[Grid], points: Sequence[Point], view: View) -> Told:
    return Told(tables, lambda: to_csv(rows, view), lambda: to_json_lines(rows) + points_to_json_lines(points))


def _of_page(sources: Sequence[Source], merged: Merged, points: Sequence[Point], view: View,
             figure: Path | None) -> Told:
    from evaluators.report.page import drawn, plain
    from jobs.paging import measured

    about, found = measured(sources, merged, points)
    way = "token" if view == "paper" else "exact"
    if figure is not None:
        make_folder(figure.parent)
        write_figure(figure, drawn.to_svg(found, way))
    return Told(list(plain.tables(found, way)), lambda: plain.to_csv(found),
                lambda: plain.to_json_lines(found) + about.to_json_line())


def _show(found: Told, form: Form, file: Path | None) -> None:
    """Writes a form of the results to a file, or to standard output."""
    if form == "table" and file is None:
        show_grids(console(), found.tables)
        return
    text = {"table": lambda: grids_to_text(found.tables), "markdown": lambda: grids_to_markdown(found.tables),
            "latex": lambda: grids_to_latex(found.tables), "csv": found.to_csv, "json": found.to_json}[form]()
    if file is None:
        typer.echo(text, nl=False)
    else:
        make_folder(file.parent)
        write_text(file, text)


def _file(out: Path, form: Form) -> Path:
    return out / FILES[form] if out.is_dir() else out


if __name__ == "__main__":
    from jobs.cli import main

    main("report")
