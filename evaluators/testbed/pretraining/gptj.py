"""Trains the built-in GPT-J on the built-in world.

Trained plainly, a model this small reads a subject's tokens straight from the last position, and no editing method
that writes at the subject can work on it. Large models gather a subject at its last token first. The training-time
attention mask here (`SubjectMask`) makes the small model do the same; inference is an ordinary GPT-J.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import GPTJConfig, GPTJForCausalLM, PreTrainedTokenizerFast

from evaluators.testbed.pretraining.base import Pretraining, PretrainingConfig
from evaluators.testbed.pretraining.corpus import Corpus, CorpusConfig, PackedBatch, SentenceMaker, train_tokenizer
from evaluators.testbed.world import build_world


@dataclass(frozen=True)
class GPTJPretrainingConfig(PretrainingConfig):
    """What made the built-in GPT-J; its card has the figures."""

    seed: int = 0
    steps: int = 3200
    polish: int = 200
    vocab_size: int = 2048
    width: int = 256
    layers: int = 8
    heads: int = 4
    inner: int = 2048
    learning_rate: float = 1.5e-3
    polish_rate: float = 2e-4
    weight_decay: float = 0.1
    warmup: int = 100
    clip: float = 1.0
    facts_only_share: float = 0.25
    rotary: int = 32
    """Dimensions of a head that are rotated by position."""
    positions: int = 256
    """Tokens that the model reads, at most."""
    mask_probability: float = 0.9
    """Share of rows in which `SubjectMask` closes the shortcut past the subject."""
    mask_release_layer: int = 3
    """First block from which a subject's last token may be read in these rows."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """The text."""


def new_model(config: GPTJPretrainingConfig, tokenizer: PreTrainedTokenizerFast) -> GPTJForCausalLM:
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

    def masks(self, batch: PackedBatch, masked: Sequence[bool]) -> tuple[torch.Tensor, torch.Tensor]:
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
    def applied(self, batch: PackedBatch, masked: Sequence[bool]) -> Iterator[None]:
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


class GPTJPretraining(Pretraining[GPTJPretrainingConfig, GPTJForCausalLM]):
    def __init__(self, config: GPTJPretrainingConfig, directory: Path) -> None:
        world = build_world(config.seed)
        tokenizer = train_tokenizer(world, config.vocab_size)
        super().__init__(config, directory, world, tokenizer, new_model(config, tokenizer))
        self.corpus = Corpus(world, SentenceMaker(tokenizer), config.corpus, config.seed)
        self.mask = SubjectMask(self.model, config.mask_release_layer)

    def _loss(self, *, chains: bool) -> torch.Tensor:
        config = self.config
        batch = self.corpus.batch(self.step, chains=chains)
        rng = random.Random(f"mask {config.seed} {self.step}")
        masked = [rng.random() < config.mask_probability for _ in range(config.corpus.rows)]
        with self.mask.applied(batch, masked), torch.autocast("cpu", torch.bfloat16):
            logits = self.model(input_ids=batch.ids).logits[:, :-1]
        losses = functional.cross_entropy(logits.float().flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
        weights = batch.weights[:, 1:].flatten()
        return (losses * weights).sum() / weights.sum()
