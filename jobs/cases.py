"""`editfleet cases`: single edits, with what the unedited and the edited model say to every question.

    python -m jobs.cases results/quickstart --editor rome --failed
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby, islice
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import typer
from rich.table import Table

from cluster.store.errors import Damaged
from cluster.store.store import Store
from editors.core.errors import InputError, quoted, unknown
from editors.core.printable import CELL, in_json, printable
from jobs.console import SHOWN, choose_campaign, console, exit_codes, warn, warn_of_damaged

OF_EDIT = ("editor", "model", "dataset", "protocol", "edits", "seed", "order", "settings", "case_id")
SHOWN_OF_QUESTION = ("question", "prompt", "expected", "unedited", "edited")


def cases(
    store: Annotated[str, typer.Argument(help="The folder or URL given to `run` as --out.")],
    editor: Annotated[str | None, typer.Option(help="Edits of this editor alone, as tables call it.")] = None,
    case: Annotated[str | None, typer.Option(help="Edits of this case alone.")] = None,
    relation: Annotated[str | None, typer.Option(help="Edits of this relation alone.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Questions alone that were not answered right.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many edits are shown, at most.")] = SHOWN,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, one object a line for every question.")] = False,
    campaign: Annotated[str | None, typer.Option(help="Which campaign, if not the one that was run last.")] = None,
) -> None:
    """Show single edits: every question, what was expected, and what the unedited and the edited model say."""
    with exit_codes():
        found = Store.open(store)
        record = choose_campaign(found.place, found.campaigns(), campaign)
        damaged: list[Damaged] = []
        table = found.answers(record.tasks, damaged)
        warn_of_damaged(found.place, damaged)
        if not len(table):
            raise InputError(f"store '{found.place}' has nothing that models said in '{record.name}': nothing is done "
                             "yet, or it was run with 'answers: false', or by a version that kept none")
        for name, wanted in (("editor", editor), ("case_id", case), ("relation", relation)):
            table = _only(table, name, wanted)
        if failed:
            table = table.filter(pc.less(table["right"], 1.0))
        edits = groupby(_rows(table), lambda row: tuple(row[name] for name in OF_EDIT))
        for _, rows in islice(edits, limit):
            if as_json:
                for row in rows:
                    typer.echo(in_json(json.dumps(row, ensure_ascii=False)))
            else:
                _show(list(rows))
        if next(edits, None) is not None:
            warn(f"there are more than {limit} edits: choose by --editor, --case or --relation, or see more by --limit")


def _only(table: pa.Table, name: str, wanted: str | None) -> pa.Table:
    if wanted is None:
        return table
    left = table.filter(pc.equal(table[name], wanted))
    if not len(left):
        if name == "editor":
            raise unknown("editor", wanted, {each.as_py() for each in pc.unique(table[name])})
        raise InputError(f"there is no {name.removesuffix('_id')} {quoted(wanted)} among what was asked")
    return left


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()


def _show(rows: list[dict[str, Any]]) -> None:
    """One edit: what it is, and a line to each of its questions."""
    first = rows[0]
    seed = f", seed {first['seed']}" if first["seed"] else ""
    order = f", order {first['order']}" if first["order"] else ""
    about = [f"relation {first['relation']}" if first["relation"] is not None else "",
             f"change of weights {first['patch_norm']:.4g}" if first["patch_norm"] is not None else "",
             f"{first['seconds']:.3g} s" if first["seconds"] is not None else ""]
    console().print(f"{first['editor']} on {first['model']}, {first['dataset']}, {first['protocol']} {first['edits']}"
                    f"{seed}{order}: {first['case_id']} ({first['subject']})", soft_wrap=True)
    console().print("  " + ", ".join(filter(None, about)), soft_wrap=True)
    table = Table(*SHOWN_OF_QUESTION, "right")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in SHOWN_OF_QUESTION), f"{100 * row['right']:.0f} %")
        if row["edited_written"] is not None:
            table.add_row("  written", "", "", _cell(row["unedited_written"]), _cell(row["edited_written"]), "")
    console().print(table)


def _cell(text: str | None) -> str:
    return "-" if text is None else printable(text, CELL)


if __name__ == "__main__":
    from jobs.cli import main

    main("cases")
