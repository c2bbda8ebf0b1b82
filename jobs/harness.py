"""`editfleet harness`: other tasks than the edit's own (paper, section 5.2), before and after it, with EleutherAI's
lm-evaluation-harness.

    python -m jobs.harness testbed-gptj --patch edit.safetensors --tasks piqa,lambada_openai --out harness.json
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from jobs.console import check_device, console, exit_codes
from jobs.patches import read_model
from jobs.progress import saying

if TYPE_CHECKING:
    from evaluators.harness import Change


def harness(
    model: Annotated[str, typer.Argument(help="A built-in model, a folder or a hub name.")],
    tasks: Annotated[str, typer.Option(help="Names of the harness's tasks, with commas between them.")],
    out: Annotated[Path, typer.Option(help="JSON file for the results.")],
    patch: Annotated[list[Path] | None, typer.Option(help="A saved patch; several add up.")] = None,
    include_path: Annotated[Path | None, typer.Option(help="A folder with tasks of your own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many questions of each task.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions in a batch.")] = 8,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(
        help="The weights' precision.")] = "float32",
) -> None:
    """Run tasks of lm-evaluation-harness on a model, unedited and with patches on it, and show the difference."""
    with exit_codes():
        from evaluators.files import check_writable, write_json
        from evaluators.harness import check_tasks, compare, load_edit, open_tasks

        check_writable(out)
        manager = open_tasks(include_path)
        names = check_tasks([name for part in tasks.split(",") if (name := part.strip())], manager)
        check_device(device)
        files = patch or []
        with saying() as say:
            say(f"loading {model}")
            loaded = read_model(model, device, dtype)
            edit = load_edit(files, loaded) if files else None
        changes = compare(loaded, edit, names, manager, limit=limit, batch_size=batch_size)
        write_json(out, {"model": model, "digest": loaded.digest, "dtype": dtype,
                         "patches": [str(file) for file in files], "limit": limit,
                         "lm_eval": importlib.metadata.version("lm-eval"),
                         "results": [change.to_json() for change in changes]})
        console().print(_table(changes))


def _table(changes: Sequence[Change]) -> Table:
    edited = any(change.edited is not None for change in changes)
    table = Table("task", "metric")
    for name in ("unedited", "edited", "difference") if edited else ("unedited",):
        table.add_column(name, justify="right")
    for change in changes:
        numbers = [f"{change.unedited:.4f}"]
        if change.edited is not None and change.difference is not None:
            numbers += [f"{change.edited:.4f}", f"{change.difference:+z.4f}"]
        table.add_row(change.task, change.metric, *numbers)
    return table


if __name__ == "__main__":
    from jobs.cli import main

    main("harness")
