"""One training run of a built-in model on the built-in world: learning rate, checkpoints, resuming, saving.

`gptj` and `t5` beside this file add the architecture, its data and one step.
"""

from __future__ import annotations

import json
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from editors.core.errors import InputError
from editors.core.headers import PretrainingHeader
from editors.core.methods.checkpoints import Checkpoint
from editors.core.models.hugging_face import save_folder
from evaluators.files import make_folder
from evaluators.testbed.world import World


@dataclass(frozen=True)
class PretrainingConfig:
    """Everything that determines the weights; `fingerprint` refuses to resume a run of another configuration. All
    values are ours: found by trial on this world, with models of this size."""

    seed: int
    """Of the world, the text and the initial weights."""
    steps: int
    """Optimiser steps on facts and chains."""
    polish: int
    """Further steps on the facts alone, at a low rate: they mend the last few answers that are nearly right."""
    vocab_size: int
    """Tokens of the tokenizer."""
    width: int
    """Of the states between blocks."""
    layers: int
    """Blocks."""
    heads: int
    """Attention heads of a block."""
    inner: int
    """Neurons of a block's FFN."""
    learning_rate: float
    """Of AdamW at its highest; it falls to 2 % of that by a cosine."""
    polish_rate: float
    """Learning rate at the start of the polish; it falls to 0 in a line."""
    weight_decay: float
    """Of matrices; vectors have none."""
    warmup: int
    """Steps in which the learning rate rises from 0."""
    clip: float
    """The gradient's norm, at most."""
    facts_only_share: float
    """Share of `steps` at the beginning that see facts alone, and no chains."""

    @property
    def all_steps(self) -> int:
        return self.steps + self.polish

    @property
    def fingerprint(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


C = TypeVar("C", bound=PretrainingConfig)
M = TypeVar("M", bound=PreTrainedModel)


class Pretraining(ABC, Generic[C, M]):
    """One training run, resumable from `directory/checkpoint.safetensors`."""

    def __init__(self, config: C, directory: Path, world: World, tokenizer: PreTrainedTokenizerFast, model: M) -> None:
        self.config, self.directory, self.step = config, directory, 0
        self.world, self.tokenizer = world, tokenizer
        self.model = model
        self.optimizer = self._new_optimizer()
        self._checkpoint = Checkpoint(directory / "checkpoint.safetensors")

    @abstractmethod
    def _loss(self, *, chains: bool) -> torch.Tensor:
        """The loss of step `self.step`, on a batch that depends on nothing but the configuration and the step."""

    def _new_optimizer(self) -> torch.optim.AdamW:
        matrices = [p for p in self.model.parameters() if p.ndim == 2]
        vectors = [p for p in self.model.parameters() if p.ndim < 2]
        return torch.optim.AdamW(
            [{"params": matrices, "weight_decay": self.config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            betas=(0.9, 0.98), fused=True)

    def _learning_rate(self) -> float:
        config, step = self.config, self.step
        if step >= config.steps:
            return config.polish_rate * (config.all_steps - step) / config.polish
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        return config.learning_rate * cosine * min(1.0, (step + 1) / config.warmup)

    def train_step(self) -> float:
        """One optimiser step; returns the loss."""
        config = self.config
        if self.step == config.steps:
            # The polish starts from the weights as they will be stored, with a fresh optimiser.
            nn.Module.half(self.model)
            nn.Module.float(self.model)
            self.optimizer = self._new_optimizer()
        loss = self._loss(chains=config.facts_only_share * config.steps <= self.step < config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    def save_checkpoint(self) -> None:
        self._checkpoint.save(dict(self.model.named_parameters()), self.optimizer,
                              PretrainingHeader(step=self.step, config=self.config.fingerprint))

    def resume(self) -> bool:
        """Continues from the checkpoint if there is one.

        Raises `InputError` for a checkpoint of another configuration, and for a folder with a finished model.
        """
        if not self._checkpoint.path.exists():
            if (self.directory / "model.safetensors").exists():
                raise InputError(f"'{self.directory}' holds a finished model; name another --out")
            make_folder(self.directory)
            return False
        header = self._checkpoint.header(PretrainingHeader)
        if header.config != self.config.fingerprint:
            raise InputError(f"{self._checkpoint.path} belongs to another configuration; remove it or name "
                             "another --out")
        weights = self._checkpoint.load(PretrainingHeader, dict(self.model.named_parameters()), self.optimizer)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[name])
        self.step = header.step
        return True

    def train(self, on_step: Callable[[int, float], None], checkpoint_every: int = 300) -> None:
        self.model.train()
        while self.step < self.config.all_steps:
            loss = self.train_step()
            on_step(self.step, loss)
            if self.step % checkpoint_every == 0:
                self.save_checkpoint()
        nn.Module.eval(self.model)

    def save_model(self) -> None:
        """Writes the fp16 model and tokenizer, ready for `from_pretrained`, and drops the checkpoint."""
        partial = self.directory.with_name(self.directory.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        nn.Module.half(self.model)
        save_folder(partial, self.model, self.tokenizer)
        for file in partial.iterdir():
            file.replace(self.directory / file.name)
        partial.rmdir()
        self._checkpoint.remove()
        nn.Module.float(self.model)  # fp16-rounded, as it will be loaded
