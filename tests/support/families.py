"""A tiny random model of every family of decoders, over one tokenizer."""

from __future__ import annotations

from functools import cache

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from editors.core.models.families import ARCHITECTURES
from editors.core.models.model import LanguageModel

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
         "max_position_embeddings": 160}
GROUPED = {**SIZES, "num_key_value_heads": 2}
GPT = {"n_embd": 32, "n_inner": 48, "n_layer": 3, "n_head": 4, "n_positions": 160}
WINDOWS = {"sliding_window": 144, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
FALCON = {"hidden_size": 32, "ffn_hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
          "max_position_embeddings": 160}
OPT = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
       "max_position_embeddings": 160, "word_embed_proj_dim": 32}

#: Fields of the configurations, by a name that starts with the family's.
FAMILIES = {
    "llama": {**GROUPED, "tie_word_embeddings": True}, "mistral": {**GROUPED, "sliding_window": 128},
    "qwen2": GROUPED, "qwen3": {**GROUPED, "head_dim": 16}, "olmo2": GROUPED, "phi3": {**GROUPED, "pad_token_id": 0},
    "gemma2": {**GROUPED, **WINDOWS, "head_dim": 16, "query_pre_attn_scalar": 16, "final_logit_softcapping": 2.0},
    "gemma3_text": {**GROUPED, **WINDOWS, "head_dim": 16, "query_pre_attn_scalar": 16},
    "gptj": {**GPT, "rotary_dim": 8, "tie_word_embeddings": False}, "gpt2": GPT, "gpt_neox": SIZES, "opt": OPT,
    "phi": GROUPED, "falcon": FALCON,
}
#: Others of the same families, whose blocks are put together in another way.
VARIANTS = {
    "llama with biases": {**SIZES, "attention_bias": True, "mlp_bias": True, "head_dim": 16},
    "qwen2 with windows": {**GROUPED, "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1},
    "gpt_neox in sequence": {**SIZES, "use_parallel_residual": False, "attention_bias": False},
    "gpt2 with its own head": {**GPT, "n_inner": None, "tie_word_embeddings": False},
    "phi with norms of heads": {**SIZES, "qk_layernorm": True},
    "falcon 40b": {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
    "falcon 11b": {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    "falcon rw": {**FALCON, "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    "opt without biases": {**OPT, "enable_bias": False, "tie_word_embeddings": False},
}
VOCABULARY = 400
TEXTS = ["What is the birthplace of Budrer Vadolm?", "X lives in so many words", "It was not so", "Ann Lee lives here.",
         "The employer of Zed Corman is Vard and Sons", "a long answer of many words, Omerga or Tusk",
         "In which of all the many cities of that long and winding country would one have to look for the house that "
         "belongs to Ann Lee"]


def config_of(name: str, **fields: object):
    """The configuration of a family's or a variant's tiny model."""
    said = {**FAMILIES, **VARIANTS}[name]
    kind = name.split()[0]
    assert kind in ARCHITECTURES
    given = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None, **said, "use_cache": False}
    return AutoConfig.for_model(kind, **{"vocab_size": VOCABULARY, **given, **fields})


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, which loses nothing, of few tokens."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS * 4, vocab_size=VOCABULARY, min_frequency=2, special_tokens=["<|endoftext|>"],
                                show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, bos_token="<|endoftext|>",
                                   eos_token="<|endoftext|>")


@cache
def tiny(name: str) -> LanguageModel:
    """The model of this name, whose every parameter matters: norms and biases are random, too."""
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config_of(name)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return LanguageModel(module, tokenizer(), f"tiny {name}", f"tiny {name}")
