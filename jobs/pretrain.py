"""`editfleet pretrain`: train a built-in model on the built-in world and print what it knows.

    python -m jobs.pretrain gptj --out evaluators/testbed/models/gptj
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from jobs.console import console, exit_codes
from jobs.progress import progress

if TYPE_CHECKING:
    from evaluators.testbed.pretraining.base import Pretraining
    from evaluators.testbed.pretraining.gptj import GPTJPretraining
    from evaluators.testbed.pretraining.t5 import T5Pretraining


class Architecture(StrEnum):
    gptj = "gptj"
    t5 = "t5"


def pretrain(
    architecture: Annotated[Architecture, typer.Argument(help="Which of the built-in models.")],
    out: Annotated[Path, typer.Option(help="Folder for the model; a run cut short resumes from here.")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seeds the world, the text and the weights.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps instead of the shipped model's.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="CPU threads.")] = os.cpu_count() or 1,
) -> None:
    """Train a built-in model (GPT-J: about half an hour on 2 cores, T5: 20 minutes) and examine it."""
    settings: dict[str, Any] = {"seed": seed} if steps is None else {"seed": seed, "steps": steps}
    with exit_codes():
        _pretrain(architecture, settings, out, threads)


def _pretrain(architecture: Architecture, settings: dict[str, Any], out: Path, threads: int) -> None:
    import torch

    from evaluators.testbed.pretraining.gptj import GPTJPretraining, GPTJPretrainingConfig
    from evaluators.testbed.pretraining.t5 import T5Pretraining, T5PretrainingConfig

    screen = console()
    torch.set_num_threads(threads)
    run: GPTJPretraining | T5Pretraining
    if architecture is Architecture.gptj:
        run = GPTJPretraining(GPTJPretrainingConfig(**settings), out)
    else:
        run = T5Pretraining(T5PretrainingConfig(**settings), out)
    if run.resume():
        screen.print(f"Resuming at step {run.step} of {run.config.all_steps}.")
    _train(run, screen)
    _examine(run, screen)
    screen.print(f"Model: {out}")


def _examine(run: GPTJPretraining | T5Pretraining, screen: Console) -> None:
    from evaluators.testbed.pretraining.card import write_gptj_card, write_t5_card
    from evaluators.testbed.pretraining.corpus import SentenceMaker
    from evaluators.testbed.pretraining.examination import causal_patching, examine
    from evaluators.testbed.pretraining.t5 import T5Pretraining

    with screen.status("examining"):
        maker = SentenceMaker(run.tokenizer)
        exact = examine(run.model, run.world, maker)
    for kind, share in exact.items():
        screen.print(f"exact match, {kind}: {100 * share:.1f} %")
    if isinstance(run, T5Pretraining):
        write_t5_card(run.directory, run.config, exact, run.model.num_parameters())
        return
    with screen.status("patching"):
        patching = causal_patching(run.model, run.world, maker)
    places = ["embedding", *(f"block {layer}" for layer in range(run.config.layers))]
    for place, share in zip(places, patching, strict=True):
        screen.print(f"restored by patching the subject's last token, {place}: {100 * share:.0f} %")
    write_gptj_card(run.directory, run.config, exact, patching, run.model.num_parameters())


def _train(run: Pretraining[Any, Any], screen: Console) -> None:
    with progress(screen, interval=30) as tell:
        run.train(lambda step, loss: tell(f"step {step} of {run.config.all_steps}, loss {loss:.3f}", step,
                                          run.config.all_steps))
    run.save_model()


if __name__ == "__main__":
    from jobs.cli import main

    main("pretrain")
