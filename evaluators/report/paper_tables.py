"""Tables 2 and 3 as Yao et al. 2023 print them: their rows and columns in their order, their numbers beside ours, and
what is missing with the command that would fill it. Their table 4 is among the costs (`cost_tables`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from editors.core.printable import printable
from evaluators.report.costs import Cost, cost_tables
from evaluators.report.grids import MISSING, Grid
from evaluators.report.paper import DATASETS, EDITORS, MODELS, in_papers_order, papers_dataset, papers_model, printed
from evaluators.report.samples import UNEDITED
from evaluators.report.tables import Summary, grids, leads_of, name_in_cell, value_in_cell
from evaluators.report.views import Headings, footnote, headings

NONE = "-"
TABLES = {"table2": ("Reliability", "Generality", "Locality"), "table3": ("Portability",)}
SOURCE = "Yao et al."  # of the rows with the paper's numbers
Fill = Mapping[str, Sequence[str]]  # commands that would fill what is missing, by `TABLES`


class Place(NamedTuple):
    """A data set and a model, by the names that rows have."""

    dataset: str
    model: str


def paper_grids(rows: Sequence[Summary | Cost], fill: Fill) -> list[Grid]:
    """The paper's tables 2 and 3 of single edits, its columns for other protocols, and costs."""
    scores = [row for row in rows if isinstance(row, Summary)]
    alone = [row for row in scores if (row.protocol, row.edits) == ("single", 1)]
    others = [row for row in scores if (row.protocol, row.edits) != ("single", 1)]
    costs = [row for row in rows if isinstance(row, Cost)]
    return [*_tables(alone, fill), *grids(others, "paper"), *cost_tables(costs, "paper")]


def _tables(rows: Sequence[Summary], fill: Fill) -> Iterator[Grid]:
    called = headings(rows, "paper")
    found = {(Place(row.dataset, row.model), called[row.dataset, row.metric], row.editor): row
             for row in rows if (row.dataset, row.metric) in called}
    if any(heading in TABLES["table2"] for _, heading, _ in found):
        yield _table2(found, _told(called, TABLES["table2"]), fill.get("table2", ()))
    if any(heading in TABLES["table3"] for _, heading, _ in found):
        yield _table3(found, _told(called, TABLES["table3"]), fill.get("table3", ()))


def _told(called: Headings, shown: Iterable[str]) -> str:
    """What is behind these headings."""
    return footnote({key: heading for key, heading in called.items() if heading in shown})


Found = Mapping[tuple[Place, str, str], Summary]


def _places(found: Found, shown: Iterable[str]) -> list[Place]:
    """Those of these headings, in the paper's order: with all of the paper's own, where any of them is."""
    places = {place for place, heading, _ in found if heading in shown}
    if any(papers_dataset(place.dataset) and papers_model(place.model) for place in places):
        have = {(papers_dataset(place.dataset), papers_model(place.model)) for place in places}
        places |= {Place(data, model) for data in DATASETS for model in MODELS if (data, model) not in have}
    data, models = [*DATASETS, None], [*MODELS, None]
    return sorted(places, key=lambda place: (data.index(papers_dataset(place.dataset)), place.dataset,
                                             models.index(papers_model(place.model)), place.model))


def _editors(found: Found, shown: Iterable[str]) -> list[str]:
    """The unedited model, the paper's editors, and others."""
    have = {editor for _, heading, editor in found if heading in shown}
    return [*sorted(have & {UNEDITED}), *sorted((have | set(EDITORS)) - {UNEDITED}, key=in_papers_order)]


def _table2(found: Found, told: str, commands: Sequence[str]) -> Grid:
    """A row for each data set, model and aspect, below it the paper's; a column for each editor."""
    shown = TABLES["table2"]
    editors, body, parts = _editors(found, shown), list[list[str]](), list[int]()
    placed: dict[tuple[int, int], Summary] = {}
    for place in _places(found, shown):
        parts.append(len(body))
        for heading in shown:
            own = {editor: found[place, heading, editor] for editor in editors if (place, heading, editor) in found}
            theirs = {editor: value for editor in editors
                      if (value := printed(heading, *place, editor)) is not None}
            if not own and not theirs:
                continue
            placed |= {(len(body), 4 + editors.index(editor)): row for editor, row in own.items()}
            body.append([*map(name_in_cell, place), heading, str(max((row.n for row in own.values()), default=NONE)),
                         *(_ours(own.get(editor), place, editor) for editor in editors)])
            if theirs:
                body.append([*map(name_in_cell, place), f"{heading}, {SOURCE}", NONE,
                             *(str(theirs.get(editor, NONE)) for editor in editors)])
    return Grid("Table 2 of Yao et al. 2023: single edits, shares in percent ± half the 95 % confidence interval",
                ["dataset", "model", "metric", "cases", *map(name_in_cell, editors)], body, 3,
                _note(told, body), leads=leads_of(placed), parts=tuple(parts), commands=_needed(body, commands))


def _table3(found: Found, told: str, commands: Sequence[str]) -> Grid:
    """A row for each editor; a column for each model and data set, beside it the paper's."""
    [heading] = shown = TABLES["table3"]
    places = sorted(_places(found, shown), key=lambda place: [*MODELS, None].index(papers_model(place.model)))
    editors, head = _editors(found, shown), ["editor"]
    body, placed = [[name_in_cell(editor)] for editor in editors], dict[tuple[int, int], Summary]()
    for place in places:
        own = {editor: found[place, heading, editor] for editor in editors if (place, heading, editor) in found}
        theirs = {editor: value for editor in editors if (value := printed(heading, *place, editor)) is not None}
        cases = f" ({max(row.n for row in own.values())} cases)" if own else ""
        placed |= {(editors.index(editor), len(head)): row for editor, row in own.items()}
        head += [f"{name_in_cell(place.model)}, {name_in_cell(place.dataset)}{cases}",
                 *([SOURCE] if theirs else [])]
        for editor, line in zip(editors, body, strict=True):
            line += [_ours(own.get(editor), place, editor),
                     *([str(theirs.get(editor, NONE))] if theirs else [])]
    return Grid("Table 3 of Yao et al. 2023: portability of single edits, shares in percent ± half the 95 % confidence "
                "interval", head, body, 1, _note(told, body), leads=leads_of(placed), commands=_needed(body, commands))


def _ours(row: Summary | None, place: Place, editor: str) -> str:
    """An editor that the paper could not have on its own model, as ROME on T5, is not missing."""
    if row is not None:
        return value_in_cell(row)
    impossible = (papers_dataset(place.dataset) and papers_model(place.model)
                  and printed("Reliability", *place, editor) is None)
    return NONE if impossible else MISSING


def _note(told: str, body: Sequence[Sequence[str]]) -> str:
    later = any(" / " in cell for line in body for cell in line[1:])
    return printable(". ".join(filter(None, [told, "Behind / is what a later version of the paper has" * later])))


def _needed(body: Sequence[Sequence[str]], commands: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(printable, commands)) if any(MISSING in line for line in body) else ()
