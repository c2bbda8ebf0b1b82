"""`editfleet score`: a saved patch, scored on facts as campaigns score theirs.

    python -m jobs.score patch.safetensors --model testbed-gptj --facts testbed-cloze --limit 50
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from evaluators.scoring.metrics import METRICS
from jobs import making
from jobs.console import check_device, console, count, data_set, exit_codes, shorten, warn
from jobs.patches import Artefact, Device, ModelName, Precision, put_on, read_model, read_patches
from jobs.progress import saying


def score(
    patch: Annotated[list[Path], typer.Argument(help="A saved patch; several add up.")],
    model: ModelName,
    facts: Annotated[str, typer.Option("--facts", "--data", help="Facts to ask: a file, a URL or a built-in set.")],
    limit: making.Limit = None,
    format: making.Format = None,
    every: Annotated[bool, typer.Option("--all", help="Every metric, not the main ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Means, and scores by fact, as JSON.")] = False,
    artefact: Artefact = None,
    device: Device = "cpu",
    dtype: Annotated[Precision, typer.Option(help="The weights' precision.")] = "float32",
) -> None:
    """Score a patch: whether its edits hold, in other words too, and what else they change."""
    with exit_codes():
        from evaluators.datasets import load_dataset

        cases = list(load_dataset(data_set(facts, format, limit=limit)).cases)
        check_device(device)
        together = read_patches(patch)
        from evaluators.kept import assess, is_of

        with saying() as say:
            say(f"loading {model}")
            loaded = read_model(model, device, dtype)
            edit = put_on(loaded, together, artefact)
            say(f"asking about {count(len(cases), 'fact')}, before and after")
            found = assess(loaded, cases, edit)
        if found.skipped:
            warn("\n".join([f"{count(len(found.skipped), 'fact')} left out:", *shorten(
                f"  {case.case_id}: {case.reason}" for case in found.skipped)]))
        if others := sum(not is_of(together, case) for case in cases):
            warn(f"not among the patch's edits: {others} of {count(len(cases), 'fact')}")
        means = {name: mean for name, mean in found.means().items()
                 if every or as_json or (name in METRICS and METRICS[name].main)}
        if as_json:
            typer.echo(json.dumps({"means": {name: {"mean": mean, "facts": number} for name, (mean, number)
                                             in means.items()},
                                   "facts": [{"fact": each.case_id, "metric": each.metric, "value": each.value}
                                             for each in found.scores]}, indent=1))
            return
        table = Table("metric", "mean", "facts", "unit")
        for name, (mean, number) in means.items():
            share = name in METRICS and METRICS[name].unit == "share"
            table.add_row(name, f"{100 * mean:.1f} %" if share else f"{mean:.4g}", str(number),
                          METRICS[name].unit if name in METRICS else "share")
        console().print(table)


if __name__ == "__main__":
    from jobs.cli import main

    main("score")
