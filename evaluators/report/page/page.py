"""The page: all sections of a report in one HTML file that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from editors.core.printable import printable
from evaluators.files import make_folder, write_text
from evaluators.report.costs import costs, parted
from evaluators.report.curves import sweeps_to_svg
from evaluators.report.page import asked, curves, scores, spent
from evaluators.report.page.about import About
from evaluators.report.page.blocks import ASPECTS, WAYS, Block, Grid, Note, Picture, Section, name
from evaluators.report.page.browser import Packed, pack
from evaluators.report.page.declared import declared
from evaluators.report.page.told import provenance, standing
from evaluators.report.pairwise import pairwise
from evaluators.report.paper import TABLE_2
from evaluators.report.sweeps import Point, sweep_grids
from evaluators.report.tables import Summary, summarise

FILE = "index.html"
HERE = Path(__file__).parent
SCRIPTS = ("page.js", "cases.js", "pairs.js")
#: What editors are compared in, with one another and with the unedited model.
COMPARED = frozenset(f"{base}.{way}" for bases in (*ASPECTS.values(), *((base,) for base in scores.SOURCES.values()))
                     for base in bases for way in WAYS) | {f"{base}.success" for base in (
                         "reliability", "generality", "locality")}


def write_page(folder: Path, about: About, table: pa.Table, points: Sequence[Point] = (),
               answers: pa.Table | None = None) -> Path:
    """Writes the page into a folder, which is made, and gives its path.

    `table` has the rows of a campaign's tasks, of which there may be none yet; `answers`, where there are any, are as
    `evaluators.report.page.asked` says. Raises `InputError` where the folder cannot be written or columns are missing.
    """
    make_folder(folder)
    write_text(folder / FILE, page(about, table, points, answers))
    return folder / FILE


def page(about: About, table: pa.Table, points: Sequence[Point] = (), answers: pa.Table | None = None) -> str:
    """The page's HTML."""
    if answers is not None:
        answers = asked.checked(answers)
    table, of_costs = parted(table)
    rows, pairs = summarise(table), pairwise(table, COMPARED)
    found = scores.Scores(rows, pairs, about.papers)
    packed = pack(table, answers, pairs)
    sections = [
        standing(about),
        _results(about, found),
        _costs(about, found, of_costs),
        _many(about, found),
        Section("methods", "What each method needs", "Methods", blocks=[declared()]),
        _locality(found, answers),
        Section("success", "Success and magnitude", "Success",
                "COUNTERFACT's measures: the new answer more probable than the old one, and by how much.",
                list(scores.success(found)) or [Note("No case has an answer to compete with.")]),
        _answers(answers),
        Section("pairs", "Editor against editor", "Pairs",
                "Paired differences over the cases that both editors have, with p-values by permutation, corrected for "
                "the number of comparisons in each table by Holm's method.", kind="pairs"),
        *_sweeps(rows, points),
        Section("cases", "Cases", "Cases", _told(packed), kind="cases"),
        provenance(about),
    ]
    return _render(about, sections, packed)


def _results(about: About, found: scores.Scores) -> Section:
    blocks: list[Block] = list(scores.single_edits(found))
    if not blocks:
        blocks = [Note("This campaign has no single edits that are scored.")]
    else:
        blocks += _absent(blocks)
    here = {(setting.dataset, about.papers.get(setting.model, "")) for setting, _ in found.of("single")}
    lost = [f"{dataset} on {model}" for dataset, models in TABLE_2.items() for model in models
            if (dataset, model) not in here]
    if lost:
        blocks.append(Note(f"Of the paper's tables 2 and 3, this store lacks {', '.join(lost)}.",
                           f"editfleet run table2 --data FOLDER --out {shlex.quote(about.store)}"))
    return Section("results", "Single edits", "Single edits", "Tables 2 and 3 of the paper: each edit on a model of "
                   "its own, with what the unedited model scores and the difference to it.", blocks)


def _costs(about: About, found: scores.Scores, table: pa.Table) -> Section:
    rows = costs(table)
    blocks: list[Block] = [*spent.cost_grids(rows, about.papers), *spent.memory(rows, about.papers)]
    frontier: list[Block] = list(spent.pareto(found, rows))
    if not blocks:
        blocks = [_lacking(about, "what edits cost", "table4")]
    elif not frontier:
        frontier = [Note("Cost against quality needs both the costs and the scores of an editor on the same model and "
                         "data; this campaign has not both.")]
    return Section("costs", "What edits cost", "Costs", "Table 4 and figure 5 of the paper, and what quality is to be "
                   "had for which time.", [*blocks, *frontier])


def _many(about: About, found: scores.Scores) -> Section:
    batches: list[Block] = [*curves.growing(found, "batch", "Figure 6, edits made as one"),
                            *scores.many_edits(found, "batch", "Figure 6 in numbers")]
    streams: list[Block] = [*curves.growing(found, "sequential", "Figure 7, one edit after another"),
                            *curves.collapse(found), *scores.many_edits(found, "sequential", "Figure 7 in numbers")]
    blocks = [*(batches + _absent(batches) if batches else [_lacking(about, "edits made as one", "figure6")]),
              *(streams + _absent(streams) if streams else [_lacking(about, "streams of edits", "figure7")])]
    return Section("many", "Many edits", "Many edits", "Figures 6 and 7 of the paper: edits made as one, and one "
                   "after another.", blocks)


def _lacking(about: About, what: str, campaign: str) -> Note:
    return Note(f"This campaign has nothing on {what} yet.",
                f"editfleet run {campaign} --scale testbed --out {shlex.quote(about.store)}")


def _absent(blocks: Sequence[Block]) -> list[Block]:
    """What to say where answers were not taken in a way."""
    there = {getattr(block, "way", "") for block in blocks}
    hints = {"generation": "; a campaign does with `measures: {generation: true}`"}
    return [Note(f"Nothing was measured by {label}{hints.get(way, '')}.", way=way) for way, label in WAYS.items()
            if way not in there]


def _locality(found: scores.Scores, answers: pa.Table | None) -> Section:
    blocks: list[Block] = list(scores.locality(found))
    blocks += _absent(blocks) if blocks else [Note("No locality was measured.")]
    if answers is not None:
        blocks += list(asked.by_neighbour(answers)) or [
            Note("Answers do not tell which answer each edit takes away: neighbours with the same answer and with "
                 "another are not told apart.")]
    return Section("locality", "Where locality is lost", "Locality", "What an edit should leave as it is, by where it "
                   "is asked.", blocks)


def _answers(answers: pa.Table | None) -> Section:
    blocks: list[Block] = []
    if answers is not None:
        blocks = [*asked.by_length(answers), *asked.by_relation(answers)]
    return Section("answers", "By target and by relation", "Answers", "What the answers to single questions tell.",
                   blocks or [Note("This store holds scores, and not the answers to single questions: how reliability "
                                   "goes with the target's length and with the relation is not known.")])


def _sweeps(rows: Sequence[Summary], points: Sequence[Point]) -> Iterator[Section]:
    if not points:
        return
    blocks: list[Block] = [Picture(sweeps_to_svg(rows, points), "Each sweep as a picture; the tables below have its "
                                   "numbers")]
    for grid in sweep_grids(rows, points, "main"):
        body = [[replace(name(cell), best=(line, column) in grid.best) for column, cell in enumerate(cells)]
                for line, cells in enumerate(grid.body)]
        blocks.append(Grid(grid.title, grid.head, body, grid.names, grid.note))
    yield Section("sweeps", "Sweeps", "Sweeps", "Means over the settings that were swept.", blocks)


def _told(packed: Packed) -> str:
    if packed.shown == packed.cases:
        return f"All {packed.cases:,} scored cases, by editor and setting."
    return (f"{packed.shown:,} of the {packed.cases:,} scored cases, by editor and setting: the first of each by their "
            "ids, as many as this page has room for. Tables and figures are of all.")


def _render(about: About, sections: Sequence[Section], packed: Packed) -> str:
    style = _file("page.css")
    script = "\n".join(map(_file, SCRIPTS))
    rooms = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                        lstrip_blocks=True)
    rooms.filters["shown"] = printable
    rooms.tests.update({kind.__name__.lower(): _is(kind) for kind in (Grid, Note, Picture)})
    policy = (f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; img-src data:; "
              "base-uri 'none'; form-action 'none'")
    return rooms.get_template("page.html").render(
        about=about, sections=sections, ways=WAYS, policy=policy, style=Markup(style), script=Markup(script),
        packed=packed.data, constants=Markup(_in_script({"aspects": ASPECTS, "ways": list(WAYS)})))


def _is(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kind)


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """What a content security policy knows an inline script or style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _in_script(value: object) -> str:
    """JSON that nothing can end a script element with."""
    return json.dumps(value).replace("<", "\\u003c")
