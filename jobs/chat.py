"""`editfleet chat`: what a model writes on with, before and after its edits, side by side.

    python -m jobs.chat --model testbed-gptj --patch patch.safetensors --prompt "Pofun Debinov was born in"
    echo "Pofun Debinov was born in" | python -m jobs.chat --model testbed-gptj --patch patch.safetensors
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from editors.core.errors import CaseError, InputError, quoted
from editors.core.printable import printable
from jobs.console import check_device, console, exit_codes, warn
from jobs.patches import Artefact, Device, ModelName, Precision, put_on, read_model, read_patches
from jobs.progress import saying


def chat(
    model: ModelName,
    patch: Annotated[list[Path], typer.Option(help="A saved patch; several add up.")],
    prompt: Annotated[list[str] | None, typer.Option(help="A text to write on; without, one from each line.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to write.")] = 20,
    artefact: Artefact = None,
    device: Device = "cpu",
    dtype: Annotated[Precision, typer.Option(help="The weights' precision.")] = "float32",
) -> None:
    """Write on after prompts, as the unedited and as the edited model does."""
    with exit_codes():
        check_device(device)
        together = read_patches(patch)
        with saying() as say:
            say(f"loading {model}")
            loaded = read_model(model, device, dtype)
            edit = put_on(loaded, together, artefact)
        from evaluators.kept import before_and_after

        for text in prompt or _typed():
            try:
                before, after = before_and_after(loaded, text, edit, tokens)
            except CaseError as error:
                if prompt:
                    raise InputError(f"--prompt {quoted(text)}: {error}") from error
                warn(f"{printable(text)}: {error}")
                continue
            table = Table("before", "after", title=printable(text), title_justify="left", min_width=40)
            table.add_row(printable(before.strip()), printable(after.strip()))
            console().print(table)


def _typed() -> Iterator[str]:
    """Lines of standard input that are not blank, asked for where somebody types."""
    asked = sys.stdin.isatty()
    while True:
        if asked:
            typer.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


if __name__ == "__main__":
    from jobs.cli import main

    main("chat")
