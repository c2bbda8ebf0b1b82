"""`editfleet audit`: which edits of a data set measure something else than they seem to.

    python -m jobs.audit testbed-cloze
    python -m jobs.audit zsre_mend_eval.json --train zsre_mend_train.json --model google-t5/t5-small --json audit.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from editors.core.places import shown
from evaluators.audit import MODEL_FLAGS, Audit, Finding, subjects
from evaluators.audit import audit as look_at
from evaluators.cases import Case, Skipped
from evaluators.datasets import load_dataset, stream_cases
from evaluators.files import check_writable, write_json
from jobs.console import SHOWN, console, count, data_set, exit_codes


def audit(
    data: Annotated[str, typer.Argument(help="A file or URL, or the name of a built-in data set.")],
    format: Annotated[str | None, typer.Option(help="What its records look like, where they do not tell.")] = None,
    target: Annotated[str | None, typer.Option(help="Of ZsRE: `alt` or `answers0`.")] = None,
    train: Annotated[str | None, typer.Option(help="Training cases, to compare subjects with: a file or URL.")] = None,
    model: Annotated[str | None, typer.Option(
        help="Which cases this model cannot be asked about: a built-in model, a folder or a hub name.")] = None,
    json: Annotated[Path | None, typer.Option(help="A file to write everything that was found to.")] = None,
    show: Annotated[int, typer.Option(min=0, help="How many cases of each kind to list.")] = SHOWN,
) -> None:
    """Look for edits that ask for nothing, contradict each other, or are asked about by questions that tell."""
    with exit_codes():
        if json is not None:
            check_writable(json)
        dataset = load_dataset(data_set(data, format, target))
        known = subjects(stream_cases(data_set(train, format, target, name="train"))) if train else frozenset()
        found = look_at(dataset.cases, known)
        if model is not None:
            found = found.with_model(_read_by(model, dataset.cases))
        if json is not None:
            write_json(json, {"data": dataset.provenance, "train": train and shown(train), "model": model,
                              **found.to_json(), "skipped": [skip.model_dump() for skip in dataset.skipped]})
        screen = console()
        screen.print(_table(found, looked_at_training=train is not None))
        for note in dataset.notes:
            screen.print(note, soft_wrap=True)
        for line in _details(found, dataset.skipped, show):
            screen.print(line, soft_wrap=True)


def _read_by(model: str, cases: Sequence[Case]) -> list[Finding]:
    from editors.core.models.loading import load_reader  # loads torch
    from evaluators.models import named_model
    from evaluators.scoring.usable import audit

    return list(audit(load_reader(named_model(model), name=model), cases))


def _table(found: Audit, looked_at_training: bool) -> Table:
    table = Table("flag", "cases", f"of {found.cases}")
    for flag, findings in found.by_flag().items():
        if flag == "train-overlap" and not looked_at_training:
            table.add_row(flag, "-", "needs --train")
        else:
            table.add_row(flag, str(len(findings)), f"{len(findings) / max(found.cases, 1):.1%}")
    for flag in MODEL_FLAGS:
        if flag not in found.flags:
            table.add_row(flag, "-", "needs --model")
    return table


def _details(found: Audit, skipped: tuple[Skipped, ...], show: int) -> list[str]:
    kinds = {"skipped": [f"{skip.case_id}: {skip.reason}" for skip in skipped]}
    kinds |= {flag: [f"{each.case_id}: {each.detail}" for each in findings]
              for flag, findings in found.by_flag().items()}
    lines = []
    for kind, each in kinds.items():
        if each:
            lines += [f"{kind}, {count(len(each), 'case')}:", *(f"  {line}" for line in each[:show])]
            lines += [f"  ... and {len(each) - show} more"] if len(each) > show else []
    return lines


if __name__ == "__main__":
    from jobs.cli import main

    main("audit")
