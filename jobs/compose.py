"""`editfleet compose`: several patches of one model as one.

    python -m jobs.compose monday.safetensors tuesday.safetensors --out both.safetensors
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editors.core.errors import InputError
from evaluators.files import check_writable
from jobs.console import console, count, exit_codes, warn
from jobs.patches import read_patches


def compose(
    patch: Annotated[list[Path], typer.Argument(help="Saved patches of one model, in order.")],
    out: Annotated[Path, typer.Option(help="The file to write their sum to; one that is there is replaced.")],
) -> None:
    """Add up patches of one model: the sum makes all their edits, in the order that they are named in."""
    with exit_codes():
        check_writable(out)
        if len(patch) < 2:
            raise InputError(f"'{patch[0]}' alone is a patch already: name two or more")
        together = read_patches(patch)
        facts = [(fact.prompt, fact.target) for fact in together.origin.facts] if together.origin else []
        if repeated := len(facts) - len(set(facts)):
            warn(f"edits that are there already: {repeated} of {len(facts)}; what is added twice changes the model "
                 "twice as much as when it was checked")
        if contrary := len(set(facts)) - len({prompt for prompt, _ in facts}):
            warn(f"edits that contradict others, of one prompt with several targets: {contrary}; the sum has all their "
                 "changes, and which one holds is open (`editfleet score` tells)")
        together.save(out)
        edits = count(len(together.origin.facts), "edit") if together.origin else count(len(together.terms), "term")
        console().print(f"{edits} of {len(patch)} patches: {out}", soft_wrap=True)


if __name__ == "__main__":
    from jobs.cli import main

    main("compose")
