"""Trains the built-in GPT-J on the built-in world.

Trained plainly, a model this small reads a subject's tokens straight from the last position, and no editing method
that writes at the subject can work on it. Large models gather a subject at its last token first. The training-time
attention mask here (`SubjectMask`) makes the small model do the same; inference is an ordinary GPT-J.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import GPTJConfig, GPTJForCausalLM, PreTrainedTokenizerFast

from editors.core.errors import InputError
from evaluators.testbed.corpus import Batch, Corpus, CorpusConfig, SentenceMaker, train_tokenizer
from evaluators.testbed.world import build_world


@dataclass(frozen=True)
class PretrainingConfig:
    """Everything that determines the weights; `fingerprint` refuses to resume a run of another configuration.

    After `steps` with facts and chains, `polish` more steps repeat the facts alone at a low rate: they mend the last
    few answers that are nearly right.
    """

    seed: int = 0
    steps: int = 3200
    polish: int = 200
    vocab_size: int = 2048
    width: int = 256
    layers: int = 8
    heads: int = 4
    inner: int = 2048
    rotary: int = 32
    positions: int = 256
    learning_rate: float = 1.5e-3
    polish_rate: float = 2e-4
    weight_decay: float = 0.1
    warmup: int = 100
    clip: float = 1.0
    facts_only_share: float = 0.25
    mask_probability: float = 0.9
    mask_release_layer: int = 3
    corpus: CorpusConfig = field(default_factory=CorpusConfig)

    @property
    def all_steps(self) -> int:
        return self.steps + self.polish

    @property
    def fingerprint(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def new_model(config: PretrainingConfig, tokenizer: PreTrainedTokenizerFast) -> GPTJForCausalLM:
    torch.manual_seed(config.seed)
    return GPTJForCausalLM(GPTJConfig(
        vocab_size=config.vocab_size, n_positions=config.positions, n_embd=config.width, n_layer=config.layers,
        n_head=config.heads, n_inner=config.inner, rotary_dim=config.rotary, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        activation_function="gelu_pytorch_tanh", tie_word_embeddings=False, use_cache=False))


class SubjectMask:
    """Per-layer attention masks that close the shortcut past a subject's last token.

    In a masked row, tokens after a subject may not attend to its earlier tokens at all, and to its last token only
    from layer `release` up, where the last token itself can no longer see the earlier ones. So what the model knows
    of a subject has to be gathered at its last token, below `release`.
    """

    def __init__(self, model: GPTJForCausalLM, release: int) -> None:
        self.model, self.release = model, release

    def masks(self, batch: Batch, masked: Sequence[bool]) -> tuple[torch.Tensor, torch.Tensor]:
        """Additive masks [rows, 1, length, length] for the layers below and from `release`."""
        rows, length = batch.ids.shape
        below = torch.ones(length, length, dtype=torch.bool).tril().repeat(rows, 1, 1)
        above = below.clone()
        for row, subjects in enumerate(batch.subjects):
            for start, stop in subjects if masked[row] else ():
                below[row, stop:, start:stop] = False
                above[row, stop - 1:, start: stop - 1] = False
        floor = torch.finfo(torch.float32).min
        return tuple(torch.zeros(mask.shape).masked_fill(~mask, floor)[:, None] for mask in (below, above))  # type: ignore[return-value]

    @contextmanager
    def applied(self, batch: Batch, masked: Sequence[bool]) -> Iterator[None]:
        below, above = self.masks(batch, masked)

        def substitute(mask: torch.Tensor) -> Callable[..., tuple[Any, dict[str, Any]]]:
            return lambda _module, args, kwargs: (args, {**kwargs, "attention_mask": mask})

        handles = [self.model.get_submodule(f"transformer.h.{layer}.attn").register_forward_pre_hook(
            substitute(below if layer < self.release else above), with_kwargs=True)
            for layer in range(self.model.config.n_layer)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class Pretraining:
    """One training run, resumable from `directory/checkpoint`."""

    def __init__(self, config: PretrainingConfig, directory: Path) -> None:
        self.config, self.directory, self.step = config, directory, 0
        self.world = build_world(config.seed)
        self.tokenizer = train_tokenizer(self.world, config.vocab_size)
        self.corpus = Corpus(self.world, SentenceMaker(self.tokenizer), config.corpus, config.seed)
        self.model = new_model(config, self.tokenizer)
        self.optimizer = self._new_optimizer()
        self.mask = SubjectMask(self.model, config.mask_release_layer)

    def _new_optimizer(self) -> torch.optim.Optimizer:
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

    def _begin_polish(self) -> None:
        """From the weights as they will be stored, with a fresh optimiser."""
        self.model.half().float()
        self.optimizer = self._new_optimizer()

    def train_step(self) -> float:
        """One optimiser step; returns the weighted loss."""
        config = self.config
        if self.step == config.steps:
            self._begin_polish()
        chains = config.facts_only_share * config.steps <= self.step < config.steps
        batch = self.corpus.batch(self.step, chains=chains)
        rng = random.Random(f"mask {config.seed} {self.step}")
        masked = [rng.random() < config.mask_probability for _ in range(config.corpus.rows)]
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        with self.mask.applied(batch, masked), torch.autocast("cpu", torch.bfloat16):
            logits = self.model(input_ids=batch.ids).logits[:, :-1]
        losses = functional.cross_entropy(logits.float().flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
        weights = batch.weights[:, 1:].flatten()
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    @property
    def _checkpoint(self) -> Path:
        return self.directory / "checkpoint.safetensors"

    def save_checkpoint(self) -> None:
        """Weights, optimiser state and step in one file, replaced atomically."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        partial = self._checkpoint.with_suffix(".partial")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial,
                  {"step": str(self.step), "config": self.config.fingerprint})
        partial.replace(self._checkpoint)

    def resume(self) -> bool:
        """Continues from the checkpoint if there is one.

        Raises `InputError` for a checkpoint of another configuration, and for a folder with a finished model.
        """
        if not self._checkpoint.exists():
            if (self.directory / "model.safetensors").exists():
                raise InputError(f"'{self.directory}' holds a finished model; name another --out")
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"cannot write to '{self.directory}': {error.strerror}") from error
            return False
        with safe_open(self._checkpoint, "pt") as file:
            header = file.metadata()
        if header["config"] != self.config.fingerprint:
            raise InputError(f"{self._checkpoint} belongs to another configuration; remove it or name another --out")
        tensors = load_file(self._checkpoint)
        self.model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()
                                    if name.startswith("model.")})
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.step = int(header["step"])
        return True

    def train(self, on_step: Callable[[int, float], None], checkpoint_every: int = 300) -> None:
        self.model.train()
        while self.step < self.config.all_steps:
            loss = self.train_step()
            on_step(self.step, loss)
            if self.step % checkpoint_every == 0:
                self.save_checkpoint()
        self.model.eval()

    def save_model(self) -> None:
        """Writes the fp16 model and tokenizer, ready for `from_pretrained`, and drops the checkpoint."""
        partial = self.directory.with_name(self.directory.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        self.model.half().save_pretrained(partial)
        self.tokenizer.save_pretrained(partial)
        for file in partial.iterdir():
            file.replace(self.directory / file.name)
        partial.rmdir()
        self._checkpoint.unlink(missing_ok=True)
        self.model.float()  # fp16-rounded, as it will be loaded
