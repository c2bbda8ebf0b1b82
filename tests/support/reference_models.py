"""Tiny models whose every weight follows from its name, so that other code, run elsewhere, can be given the same."""

from __future__ import annotations

import hashlib

import torch
from torch import nn
from transformers import GPTJConfig, GPTJForCausalLM, T5Config, T5ForConditionalGeneration

from editors.core.models.encoder_decoder import EncoderDecoder
from editors.core.models.model import LanguageModel
from evaluators.testbed.pretraining.corpus import END, train_tokenizer
from evaluators.testbed.world import build_world


def draw(name, *shape):
    """Normal numbers that hang on the name and the shape alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def fill(module: nn.Module, spread: float) -> None:
    """Draws every weight with this spread; those of norms around 1."""
    for name, parameter in module.named_parameters():
        values = spread * draw(name, *parameter.shape)
        parameter.copy_(1 + values if "norm" in name or "ln_" in name else values)


def gptj() -> LanguageModel:
    """Three layers, width 16 and 64 neurons each."""
    tokenizer = train_tokenizer(build_world(), vocab_size=1024)
    module = GPTJForCausalLM(GPTJConfig(
        vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=3, n_head=2, n_inner=64, rotary_dim=4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=False, use_cache=False))
    fill(module, 0.3)
    return LanguageModel(module, tokenizer, "reference-gptj", "reference-gptj")


def t5() -> EncoderDecoder:
    """Two and two layers, width 16 and 64 neurons each, a plain FFN."""
    tokenizer = train_tokenizer(build_world(), vocab_size=1024, end=END)
    module = T5ForConditionalGeneration(T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0.0,
        feed_forward_proj="relu", tie_word_embeddings=True, pad_token_id=0, decoder_start_token_id=0,
        eos_token_id=tokenizer.eos_token_id, use_cache=False))
    fill(module, 0.3)
    return EncoderDecoder(module, tokenizer, "reference-t5", "reference-t5")
