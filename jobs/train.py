"""`editfleet train`: train the editors of a campaign that need it, on this machine, and keep the outcome as files.

    python -m jobs.train testbed --out evaluators/testbed/artefacts
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cluster.plan.refs import ModelRef
from cluster.plan.tasks import TrainTask
from editors import get_editor
from editors.core.errors import InputError
from jobs.console import CampaignName, Data, Scale, Set, console, count, exit_codes, plan_campaign, shorten, warn
from jobs.progress import Tell, progress

if TYPE_CHECKING:
    from editors.core.models.model import LanguageModel


def train(
    campaign: CampaignName,
    out: Annotated[Path, typer.Option(help="Folder for the files; what it holds already is not trained again.")],
    scale: Scale = None,
    data: Data = None,
    set: Set = None,
) -> None:
    """Train what a campaign's editors need, on this machine: one file for each, named by its task. Resumes."""
    with exit_codes():
        screen = console()
        with screen.status("planning"):
            planned = plan_campaign(campaign, scale, data, set)
        tasks = [task for task in planned.tasks.values() if isinstance(task, TrainTask)]
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to folder '{out}': {error.strerror or error}") from error
        if not os.access(out, os.W_OK):  # to be told before hours of training, not after
            raise InputError(f"cannot write to folder '{out}': give yourself the right to, or name another --out")
        try:
            _train_all(tasks, out, screen)
        except KeyboardInterrupt:
            warn(f"What is done is kept; run the same command again to go on. Files: {out}")
            raise
        screen.print(f"{count(len(tasks), 'trained editor')} of '{planned.campaign.name}': {out}", soft_wrap=True)


def _train_all(tasks: list[TrainTask], out: Path, screen: Console) -> None:
    import torch

    from cluster.workers.executor import train as train_editor
    from editors.core.artefacts import Artefact
    from editors.core.methods.checkpoints import Checkpoint
    from evaluators.scoring.usable import unusable

    held: tuple[str, LanguageModel] | None = None
    for task in tasks:
        path = out / f"{task.id}.safetensors"
        if path.exists():
            Artefact.load(path).check(task.editor.name, task.editor.version, task.model.digest)
            screen.print(f"{task.title}: there already", soft_wrap=True)
            continue
        if held is None or held[0] != task.model.key:
            held = None  # two may not fit
            held = task.model.key, _load(task.model)
        if skipped := unusable(held[1], task.cases.cases):
            of = count(len(task.cases.cases), "training case")
            warn(f"{task.title}: {len(skipped)} of {of} cannot be used:")
            for line in shorten(f"  {case.case_id}: {case.reason}" for case in skipped):
                warn(line)
        torch.set_num_threads(task.model.threads)
        checkpoint = Checkpoint(out / f"{task.id}.checkpoint")
        with progress(screen) as tell:
            artefact = train_editor(task, held[1], skipped, checkpoint, partial(_told, tell, task, _steps(task)))
        artefact.save(path)
        checkpoint.remove()
        report = ", ".join(f"{name} {value}" for name, value in artefact.report.items())
        screen.print(f"{task.title}: {path.name}" + (f" ({report})" if report else ""), soft_wrap=True)


def _told(tell: Tell, task: TrainTask, steps: int | None, step: int, loss: float) -> None:
    most = f" of at most {steps}" if steps else ""
    tell(f"{task.title}: step {step}{most}, loss {loss:.4g}", step, steps)


def _load(ref: ModelRef) -> LanguageModel:
    import torch

    from editors.core.models.loading import load_model

    return load_model(ref.path, device="cuda" if torch.cuda.is_available() else "cpu", dtype=ref.dtype)


def _steps(task: TrainTask) -> int | None:
    """The most steps training takes, where the configuration says it."""
    from editors.core.methods.training import TrainingConfig

    config = get_editor(task.editor.name).Config.model_validate(task.editor.config)
    found = [part for part in (config, *(getattr(config, name) for name in type(config).model_fields))
             if isinstance(part, TrainingConfig)]
    return found[0].steps if found else None


if __name__ == "__main__":
    from jobs.cli import main

    main("train")
