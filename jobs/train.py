"""`editfleet train`: train the editors of a campaign that need it, on this machine, and keep the outcome as files.

    python -m jobs.train testbed --out evaluators/testbed/artefacts
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from jobs.console import CampaignName, Data, Scale, console, count, exit_codes, plan_campaign

if TYPE_CHECKING:
    from cluster.plan.refs import ModelRef
    from cluster.plan.tasks import TrainTask
    from editors.core.models.model import LanguageModel

PLAIN_INTERVAL = 100  # steps between lines where there is no terminal for a bar


def train(
    campaign: CampaignName,
    out: Annotated[Path, typer.Option(help="Folder for the files; what it holds already is not trained again.")],
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = os.cpu_count() or 1,
    scale: Scale = None,
    data: Data = None,
) -> None:
    """Train what a campaign's editors need, on this machine: one file for each, named by its task. Resumes."""
    with exit_codes():
        import torch

        from cluster.plan.tasks import TrainTask

        torch.set_num_threads(threads)
        screen = console()
        with screen.status("planning"):
            planned = plan_campaign(campaign, scale, data)
        tasks = [task for task in planned.tasks.values() if isinstance(task, TrainTask)]
        _make_folder(out)
        try:
            _train_all(tasks, out, screen)
        except KeyboardInterrupt:
            typer.echo(f"What is done is kept; run the same command again to go on. Files: {out}", err=True)
            raise
        screen.print(f"{count(len(tasks), 'trained editor')} of '{planned.campaign.name}': {out}", soft_wrap=True)


def _make_folder(path: Path) -> None:
    from editors.core.errors import InputError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to folder '{path}': {error.strerror or error}") from error


def _train_all(tasks: list[TrainTask], out: Path, screen: Console) -> None:
    from cluster.workers.executor import train as train_editor
    from editors.core.methods.checkpoints import Checkpoint

    held: tuple[str, LanguageModel] | None = None
    for task in tasks:
        path = out / f"{task.id}.safetensors"
        if path.exists():
            screen.print(f"{task.title}: there already", soft_wrap=True)
            continue
        if held is None or held[0] != task.model.key:
            held = None  # two may not fit
            held = task.model.key, _load(task.model)
        with _progress(task, screen) as on_step:
            artefact = train_editor(task, held[1], Checkpoint(out / f"{task.id}.checkpoint"), on_step)
        artefact.save(path)
        report = ", ".join(f"{name} {value}" for name, value in artefact.report.items())
        screen.print(f"{task.title}: {path.name}" + (f" ({report})" if report else ""), soft_wrap=True)


def _load(ref: ModelRef) -> LanguageModel:
    import torch

    from editors.core.models.loading import load_model

    return load_model(ref.path, device="cuda" if torch.cuda.is_available() else "cpu", dtype=ref.dtype)


@contextmanager
def _progress(task: TrainTask, screen: Console) -> Iterator[Callable[[int, float], None]]:
    """Yields what to call with every step and its loss: a live bar on a terminal, else a line now and then."""
    steps = _steps(task)
    if not screen.is_terminal:
        def tell(step: int, loss: float) -> None:
            if step % PLAIN_INTERVAL == 0:
                screen.print(f"{task.title}: step {step}{f' of at most {steps}' if steps else ''}, loss {loss:.4g}",
                             soft_wrap=True)

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                  console=screen) as bars:
        bar = bars.add_task(task.title, total=steps)
        yield lambda step, loss: bars.update(bar, completed=step, description=f"{task.title}, loss {loss:.4g}")


def _steps(task: TrainTask) -> int | None:
    """The most steps training takes, where the configuration says it."""
    from editors import get_editor
    from editors.core.methods.training import TrainingConfig

    config = get_editor(task.editor.name).Config.model_validate(task.editor.config)
    found = [part for part in (config, *(getattr(config, name) for name in type(config).model_fields))
             if isinstance(part, TrainingConfig)]
    return found[0].steps if found else None


if __name__ == "__main__":
    typer.run(train)
