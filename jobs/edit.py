"""`editfleet edit`: edits of a model as a patch file, made, checked and shown.

    python -m jobs.edit --model testbed-gptj --editor memit --facts facts.jsonl --out patch.safetensors
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from editors import EDITORS, get_editor
from editors.core.errors import InputError
from editors.core.printable import CELL, printable
from evaluators.files import check_writable
from jobs import making
from jobs.console import check_device, console, count, exit_codes
from jobs.patches import Device, ModelName, Precision
from jobs.progress import saying

if TYPE_CHECKING:
    from evaluators.kept import Assessment
    from jobs.making import Made

SHOWN = 20  # edits in the table
SUMMARY = {"reliability.exact": "of edits hold", "generality.exact": "of paraphrases agree",
           "locality.exact": "of neighbours are answered as before"}


def edit(
    model: ModelName,
    editor: Annotated[str, typer.Option(help=f"The editing method: {', '.join(EDITORS)}.")],
    out: Annotated[Path, typer.Option(help="The file to write the patch to; one that is there is replaced.")],
    facts: making.Facts = None,
    limit: making.Limit = None,
    format: making.Format = None,
    prompt: making.Prompt = None,
    subject: making.Subject = None,
    target: making.Target = None,
    stream: making.Stream = False,
    set: making.Set = None,
    seed: making.Seed = 0,
    artefact: making.Artefact = None,
    train: making.Train = None,
    corpus: making.Corpus = None,
    tokens: making.Tokens = 100_000,
    device: Device = "cpu",
    dtype: Annotated[Precision, typer.Option(help="The precision to edit in.")] = "float32",
) -> None:
    """Make edits of a model, check them, and write them as one patch file. The model itself stays as it is."""
    with exit_codes():
        check_writable(out)
        if (facts is None) == (prompt is None):
            raise InputError("take --facts for a file of edits, or --prompt, --subject and --target for one")
        one = {"prompt": prompt, "subject": subject, "target": target}
        making.check_one(one, alone=facts is None)
        if get_editor(editor).name == "serac" and artefact is None:
            artefact = making.shipped(editor, model) if train is None else None
            if artefact is None:
                raise InputError("a patch by 'serac' is of no use without what the method learned: train it first "
                                 "(`editfleet train`), and name the file with --artefact")
        settings = making.settings_of(set)
        check_device(device)
        with tempfile.TemporaryDirectory() as folder, saying() as say:
            edits = making.edits_of(facts, one, Path(folder), limit=limit, format=format, train=train)
            made = making.make_edits(making.campaign_of(
                edits, model=model, dtype=dtype, editor=editor, settings=settings, artefact=artefact, seed=seed,
                corpus=corpus, tokens=tokens, stream=stream), device, Path(folder), say)
            made.patch.save(out)
            say(f"asking about {count(len(made.cases), 'fact')}, before and after")
            told = _checked(made)
        for part in told:
            console().print(part)
        console().print(f"{count(len(made.cases), 'edit')} of {made.model.name}: {out}", soft_wrap=True)


def _checked(made: Made) -> list[Table | str]:
    """Asks the model for every fact, unedited and edited; what it says, to be shown."""
    from evaluators.kept import assess

    found = assess(made.model, made.cases, made.patch.compact())
    more, means = len(made.cases) - SHOWN, found.means()
    return [_table(made, found), *([f"... and {more} more"] if more > 0 else []),
            "; ".join(f"{100 * means[metric][0]:.1f} % {what}" for metric, what in SUMMARY.items() if metric in means)]


def _table(made: Made, found: Assessment) -> Table:
    from evaluators.kept import before_and_after

    table = Table("fact", "target", "before", "after", "ok")
    held, patch = found.of_case("reliability.exact"), made.patch.compact()
    for case in made.cases[:SHOWN]:
        tokens = len(made.model.encode(case.prompt, case.target_new).target)
        said = before_and_after(made.model, case.prompt, patch, tokens)
        cells = [printable(text.strip(), CELL) for text in (case.prompt, case.target_new, *said)]
        table.add_row(*cells, "yes" if held.get(case.id) == 1 else "no")
    return table


if __name__ == "__main__":
    from jobs.cli import main

    main("edit")
