"""Trains the built-in T5 on the built-in world's questions: question in, answer out.

With tied embeddings or the default initialisation of the embeddings a T5 this small learns almost nothing; hence the
untied head and `embedding_scale`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from evaluators.testbed.pretraining.base import Pretraining, PretrainingConfig
from evaluators.testbed.pretraining.corpus import END, Exchange, Quiz, SentenceMaker, train_tokenizer
from evaluators.testbed.world import build_world

IGNORED = -100


@dataclass(frozen=True)
class T5PretrainingConfig(PretrainingConfig):
    """What made the built-in T5; its card has the figures. It has `layers` blocks each in encoder and decoder."""

    seed: int = 0
    steps: int = 6000
    polish: int = 400
    vocab_size: int = 2048
    width: int = 256
    layers: int = 4
    heads: int = 8
    inner: int = 1024
    learning_rate: float = 1e-3
    polish_rate: float = 2e-4
    weight_decay: float = 0.05
    warmup: int = 100
    clip: float = 1.0
    facts_only_share: float = 0.3
    rows: int = 96
    """Questions of one step."""
    chain_share: float = 0.35
    """Share of two-hop questions, once there are any."""
    filler_share: float = 0.02
    """Share of lines of filler that lack their last word."""
    embedding_scale: float = 0.05
    """Standard deviation of the embeddings and of the head, at first."""


def new_model(config: T5PretrainingConfig, tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
    torch.manual_seed(config.seed)
    untyped: Any = T5Config  # its signature leaves out what every configuration takes
    settings = untyped(
        vocab_size=config.vocab_size, d_model=config.width, d_kv=config.width // config.heads, d_ff=config.inner,
        num_layers=config.layers, num_heads=config.heads, dropout_rate=0.0, feed_forward_proj="relu",
        tie_word_embeddings=False, pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, use_cache=False)
    model = T5ForConditionalGeneration(settings)
    with torch.no_grad():
        model.shared.weight.mul_(config.embedding_scale)
        # The library ties the head in any case, and unties it on loading where a file holds both.
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * config.embedding_scale)
    return model


class T5Pretraining(Pretraining[T5PretrainingConfig, T5ForConditionalGeneration]):
    def __init__(self, config: T5PretrainingConfig, directory: Path) -> None:
        world = build_world(config.seed)
        tokenizer = train_tokenizer(world, config.vocab_size, end=END)
        super().__init__(config, directory, world, tokenizer, new_model(config, tokenizer))
        self.quiz = Quiz(world, SentenceMaker(tokenizer), config.chain_share, config.filler_share)

    def _loss(self, *, chains: bool) -> torch.Tensor:
        rng = random.Random(f"batch {self.config.seed} {self.step}")
        ids, mask, labels = collate([self.quiz.draw(rng, chains=chains) for _ in range(self.config.rows)])
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(input_ids=ids, attention_mask=mask, labels=labels).logits
        return functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def collate(rows: list[Exchange]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Encoder ids and mask [rows, length], and labels [rows, target length] with `IGNORED` where there is no token."""
    ids = pad_sequence([torch.tensor(question) for question, _ in rows], batch_first=True)
    labels = pad_sequence([torch.tensor(answer) for _, answer in rows], batch_first=True, padding_value=IGNORED)
    lengths = torch.tensor([len(question) for question, _ in rows])
    mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
    return ids, mask, labels
