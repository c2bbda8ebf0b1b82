"""`editfleet undo`: a patch without one of its edits.

    python -m jobs.undo patch.safetensors --edit 3 --out without.safetensors
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editors.core.errors import InputError
from evaluators.files import check_writable
from jobs.console import console, count, exit_codes, warn


def undo(
    patch: Annotated[Path, typer.Argument(help="A saved patch.")],
    out: Annotated[Path, typer.Option(help="The file to write the rest to; one that is there is replaced.")],
    edit: Annotated[int | None, typer.Option(min=1, help="Which edit, by its number in `editfleet show`.")] = None,
    last: Annotated[bool, typer.Option("--last", help="The last one.")] = False,
) -> None:
    """Take an edit out of a patch whose edits are kept apart: a stream's, or a sum's."""
    with exit_codes():
        check_writable(out)
        if (edit is None) != last:
            raise InputError("name the edit to take away: --edit with its number in `editfleet show`, or --last")
        from editors.core.patches.patch import Patch

        whole = Patch.load(patch)
        if whole.origin is None:
            raise InputError(f"'{patch}' does not say which of its terms are which edit's: it was not written by "
                             "`editfleet edit`. Make the other edits anew")
        number = len(whole.origin.facts) if edit is None else edit
        left = whole.without(number)
        left.save(out)
        taken = whole.origin.facts[number - 1]
        if number < len(whole.origin.facts):
            warn("the edits after it stay as they were made; where that was on the model with it, as in a stream, they "
                 "would come out otherwise without it: to have them so, make them anew")
        remaining = count(len(left.origin.facts if left.origin else ()), "edit")
        console().print(f"without \"{taken.prompt} {taken.target}\", {remaining} left: {out}", soft_wrap=True)


if __name__ == "__main__":
    from jobs.cli import main

    main("undo")
