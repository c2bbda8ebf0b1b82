"""Fixtures shared by all tests."""

from __future__ import annotations

import pytest
import torch
from transformers import GPTJConfig, GPTJForCausalLM

from editors.core.models import LanguageModel
from evaluators.testbed.corpus import train_tokenizer
from evaluators.testbed.world import build_world


@pytest.fixture(scope="session")
def tiny_gptj() -> LanguageModel:
    """A random GPT-J of 4 layers and width 32 that reads the built-in world's text."""
    tokenizer = train_tokenizer(build_world(), vocab_size=1024)
    torch.manual_seed(0)
    module = GPTJForCausalLM(GPTJConfig(
        vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=4, n_head=2, n_inner=64, rotary_dim=8,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=False, use_cache=False))
    return LanguageModel(module, tokenizer, "tiny-gptj", "tiny")
