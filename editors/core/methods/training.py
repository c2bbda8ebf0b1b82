"""Trains what some methods need before they can edit (SERAC, KE, MEND): early stopping on held-out facts, a checkpoint
every few minutes, the same steps whether or not it was interrupted."""

from __future__ import annotations

import hashlib
import math
import random
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.editor import EditorConfig
from editors.core.errors import InputError
from editors.core.examples import Example
from editors.core.headers import Progress, TrainingHeader
from editors.core.methods.checkpoints import Checkpoint
from editors.core.models.architectures import Shape

CHECKPOINT_SECONDS = 120.0
PRACTISED = 120  # tokens of an example: the edit, and what should and should not follow from it, forth and back
OnStep = Callable[[int, float], None]


class TrainingConfig(EditorConfig):
    """How long and on what a method is trained; its authors' values are in `editors/configs`."""

    steps: PositiveInt
    """Steps of the optimiser, at most. Mitchell et al. 2022a and b, published configurations."""

    batch_size: PositiveInt
    """Examples in a batch. Mitchell et al. 2022a and b, published configurations."""

    learning_rate: PositiveFloat
    """Adam's learning rate. Mitchell et al. 2022a and b, published configurations."""

    accumulate: PositiveInt = 1
    """Batches whose gradients make one step. Mitchell et al. 2022a and b, published configurations: 10."""

    clip: PositiveFloat = 100.0
    """Norm that a step's gradient is cut to. Mitchell et al. 2022a and b, published configurations."""

    decay: bool = False
    """Whether learning rates fall to 0 along a cosine over `steps`. Ours: in the published code they stay."""

    swapped: float = Field(0.0, ge=0, le=1)
    """Share, from 0 to 1, of facts that are practised with the answer of another fact of their batch. Ours: the
    authors' records have many answers each."""

    validate_every: PositiveInt = 100
    """Steps between looks at the loss on held-out examples. Ours; Mitchell et al. 2022a and b look every 500 steps."""

    validation_examples: PositiveInt = 100
    """Examples that are held out, with whole subjects. Ours; Mitchell et al. 2022a and b take 500."""

    patience: int = Field(1000, ge=1)
    """Steps after which training ends when the loss on held-out examples has not fallen. Ours; Mitchell et al. 2022a
    wait 2,000, Mitchell et al. 2022b 4,000."""

    def cost(self, shape: Shape) -> float:
        """Floating point operations of all steps, for a model of this shape that is run, or trained."""
        return shape.flops(PRACTISED * self.steps * self.batch_size * self.accumulate)


class Trainee(ABC):
    """What `fit` trains. `module` holds all weights and buffers that are to be kept; `name` says what they are and for
    which model, so that no run goes on from the checkpoint of another."""

    module: nn.Module
    config: TrainingConfig
    name: str = ""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for Adam, in a fixed order."""

    @abstractmethod
    def losses(self, examples: Sequence[Example], rng: random.Random) -> Iterator[Tensor]:
        """What the loss of one batch is the sum of, each with a graph, one after another where memory is short."""

    @torch.no_grad()
    def validation_loss(self, examples: Sequence[Example], rng: random.Random) -> float:
        """The mean of the loss over held-out examples, lower is better; `rng` is the same at every call."""
        size, total = self.config.batch_size, 0.0
        for start in range(0, len(examples), size):
            part = examples[start: start + size]
            total += sum(map(float, self.losses(part, rng))) * len(part)
        return total / len(examples)


def fit(trainee: Trainee, examples: Sequence[Example], config: TrainingConfig, *, seed: int,
        checkpoint: Checkpoint | None = None, on_step: OnStep | None = None) -> dict[str, Any]:
    """Trains and leaves the best weights in `trainee.module`; returns a report (JSON).

    Held out are whole subjects. With `checkpoint`, a run that was cut short goes on from that file; who keeps the
    outcome removes it. Raises `InputError` where there are too few examples, or no loss was ever finite.
    """
    run = _Run(trainee, examples, config, seed, checkpoint)
    run.resume()
    while not run.finished:
        loss = run.step()
        if on_step is not None:
            on_step(run.progress.step, loss)
    return run.finish()


def hold_out(examples: Sequence[Example], count: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and held-out examples without a common subject; at least `count`, but no more than half, are held out.

    Raises `InputError` where nothing would be left on either side.
    """
    subjects = sorted({example.request.subject for example in examples})
    random.Random(f"hold out {seed}").shuffle(subjects)
    chosen: set[str] = set()
    held_out: list[Example] = []
    for subject in subjects[: len(subjects) // 2]:
        if len(held_out) >= min(count, len(examples) // 2):
            break
        chosen.add(subject)
        held_out += [example for example in examples if example.request.subject == subject]
    if not held_out:
        raise InputError(f"training needs facts about at least two subjects, got {len(examples)} about {len(subjects)}")
    return [example for example in examples if example.request.subject not in chosen], held_out[:count]


def _swap_answers(batch: Sequence[Example], share: float, rng: random.Random) -> list[Example]:
    answers = [example.request.target for example in batch]
    return [replace(example, request=replace(example.request, target=rng.choice(answers)))
            if share and rng.random() < share else example for example in batch]


class _Run:
    def __init__(self, trainee: Trainee, examples: Sequence[Example], config: TrainingConfig, seed: int,
                 checkpoint: Checkpoint | None) -> None:
        self.trainee, self.config, self.seed, self.checkpoint = trainee, config, seed, checkpoint
        self.training, self.held_out = hold_out(examples, config.validation_examples, seed)
        self.optimizer = torch.optim.Adam(trainee.parameter_groups(), lr=config.learning_rate)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.progress = Progress()
        self.best = self._weights()
        self.fingerprint = _fingerprint(trainee.name, config, examples, seed)
        self._saved = time.monotonic()

    @property
    def finished(self) -> bool:
        progress = self.progress
        return (progress.step >= self.config.steps
                or progress.step - progress.best_step >= self.config.patience + self.config.validate_every)

    def step(self) -> float:
        """One optimiser step; one whose gradient is not finite is left out, and counted."""
        config, progress = self.config, self.progress
        total = 0.0
        rng = random.Random(f"step {self.seed} {progress.step}")
        for _ in range(config.accumulate):
            batch = rng.sample(self.training, min(config.batch_size, len(self.training)))
            for loss in self.trainee.losses(_swap_answers(batch, config.swapped, rng), rng):
                (loss / config.accumulate).backward()
                total += float(loss.detach()) / config.accumulate
        norm = nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]],
                                        config.clip)
        # 1/2 (1 + cos(π step / steps))
        decay = 0.5 + 0.5 * math.cos(math.pi * progress.step / config.steps) if config.decay else 1.0
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * decay
        if norm.isfinite():
            self.optimizer.step()
        else:
            progress.skipped += 1
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        if progress.step % config.validate_every == 0 or progress.step == config.steps:
            self._validate()
        self._save_now_and_then()
        return total

    def _validate(self) -> None:
        loss = self.trainee.validation_loss(self.held_out, random.Random(f"validation {self.seed}"))
        if loss < self.progress.best_loss:
            self.progress.best_loss, self.progress.best_step = loss, self.progress.step
            self.best = self._weights()

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.trainee.module.state_dict().items()}

    def _save_now_and_then(self) -> None:
        if self.checkpoint is not None and time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self.checkpoint.save(self._state(), self.optimizer,
                                 TrainingHeader(run=self.fingerprint, progress=self.progress))
            self._saved = time.monotonic()

    def _state(self) -> dict[str, Tensor]:
        """The weights as they are and as they were best."""
        return {f"{when}.{name}": tensor for when, weights in (("now", self._weights()), ("best", self.best))
                for name, tensor in weights.items()}

    def resume(self) -> None:
        """Goes on from the checkpoint; one of another run, or one that cannot be read, is left aside."""
        if self.checkpoint is None or not self.checkpoint.path.exists():
            return
        if self.checkpoint.path.is_dir():
            raise InputError(f"training cannot keep its checkpoint at '{self.checkpoint.path}': a folder is in its "
                             "place; remove it")
        try:
            header = self.checkpoint.header(TrainingHeader)
            if header.run != self.fingerprint:
                return
            weights = self.checkpoint.load(TrainingHeader, self._state(), self.optimizer)
        except InputError as error:  # a damaged file costs the progress it held, nothing else
            warnings.warn(f"training starts anew: {error}", stacklevel=2)
            return
        self.progress = header.progress
        self.trainee.module.load_state_dict({name.removeprefix("now."): tensor for name, tensor in weights.items()
                                             if name.startswith("now.")})
        self.best = {name.removeprefix("best."): tensor for name, tensor in weights.items()
                     if name.startswith("best.")}

    def finish(self) -> dict[str, Any]:
        progress = self.progress
        if not math.isfinite(progress.best_loss):
            raise InputError(f"training came to nothing: after {progress.step} steps, {progress.skipped} of them left "
                             "out because their gradient was not finite, the loss on held-out facts never was finite. "
                             f"Lower learning_rate ({self.config.learning_rate:g}), or take the model in float32 or "
                             "bfloat16")
        self.trainee.module.load_state_dict(self.best)
        return {**self.progress.model_dump(), "examples": len(self.training), "held_out": len(self.held_out)}


def _fingerprint(name: str, config: TrainingConfig, examples: Sequence[Example], seed: int) -> str:
    running = hashlib.sha256(f"{name} {config.model_dump_json()} {seed}".encode())
    for example in examples:
        running.update(repr(example).encode())
    return running.hexdigest()
