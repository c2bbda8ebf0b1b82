"""What a report finds, section by section: tables and figures, of which the page is made, and `plain` tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import pyarrow as pa

from evaluators.report.costs import costs, parted
from evaluators.report.curves import sweeps_to_svg
from evaluators.report.page import asked, curves, scores, spent
from evaluators.report.page.about import About
from evaluators.report.page.blocks import ASPECTS, WAYS, Block, Grid, Note, Picture, Section, name
from evaluators.report.page.declared import declared
from evaluators.report.pairwise import Pair, pairwise
from evaluators.report.paper import TABLE_2
from evaluators.report.sweeps import Point, sweep_grids
from evaluators.report.tables import Summary, summarise

#: What editors are compared in, with one another and with the unedited model.
COMPARED = frozenset(f"{base}.{way}" for bases in (*ASPECTS.values(), *((base,) for base in scores.SOURCES.values()))
                     for base in bases for way in WAYS) | {f"{base}.success" for base in (
                         "reliability", "generality", "locality")}


class Measured(NamedTuple):
    """The scores and the answers that a report is of, every comparison of two editors, and the sections."""

    scores: pa.Table
    answers: pa.Table | None
    pairs: Sequence[Pair]
    sections: Sequence[Section]


def measure(about: About, table: pa.Table, points: Sequence[Point] = (), answers: pa.Table | None = None) -> Measured:
    """Sums up the rows of a campaign's tasks; `answers`, where there are any, are as `asked` says. Raises `InputError`
    where columns are missing."""
    if answers is not None:
        answers = asked.checked(answers)
    table, of_costs = parted(table)
    rows, pairs = summarise(table), pairwise(table, COMPARED)
    found = scores.Scores(rows, pairs, about.papers)
    return Measured(table, answers, pairs, [
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
        *_sweeps(rows, points)])


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
                           about.fill.get("table2", "")))
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
    return Note(f"This campaign has nothing on {what} yet.", about.fill.get(campaign, ""))


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
