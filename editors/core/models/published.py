"""The shapes of models that papers name, as they are published: enough to plan with where a model is not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Sizes of the published configurations, by hub name. GPT-J: Wang and Komatsuzaki 2021. T5: Raffel et al. 2020; v1.1 XL,
# of which google/t5-xl-ssm-nq is a fine-tuned one, has a gated FFN and a head of its own.
_T5 = {"model_type": "t5", "vocab_size": 32128, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 32,
       "relative_attention_num_buckets": 32, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
_T5_XL = {**_T5, "d_model": 2048, "d_kv": 64, "d_ff": 5120, "feed_forward_proj": "gated-gelu",
          "tie_word_embeddings": False}
_T5_3B = {**_T5, "d_model": 1024, "d_kv": 128, "d_ff": 16384, "feed_forward_proj": "relu"}
SHAPES: dict[str, dict[str, Any]] = {
    "EleutherAI/gpt-j-6b": {
        "model_type": "gptj", "vocab_size": 50400, "n_positions": 2048, "n_embd": 4096, "n_layer": 28, "n_head": 16,
        "n_inner": 16384, "rotary_dim": 64, "tie_word_embeddings": False},
    "google/t5-xl-ssm-nq": _T5_XL,
    "google/t5-v1_1-xl": _T5_XL,
    "google-t5/t5-3b": _T5_3B,
    "t5-3b": _T5_3B,
}


def published_config(name: str) -> PretrainedConfig | None:
    """The configuration of the model with this hub name, as far as sizes go; None for one that is not listed."""
    said = next((shape for known, shape in SHAPES.items() if known.lower() == name.lower()), None)
    if said is None:
        return None
    from transformers import CONFIG_MAPPING

    config: PretrainedConfig = CONFIG_MAPPING[said["model_type"]].from_dict({**said, "name_or_path": name})
    return config


def is_at_hand(name: str) -> bool:
    """Whether a model can be looked at without a network: in a folder, or in the hub's local cache."""
    from huggingface_hub import constants, try_to_load_from_cache

    if Path(name).is_dir():
        return True
    try:
        return isinstance(try_to_load_from_cache(name, "config.json", cache_dir=constants.HF_HUB_CACHE), str)
    except ValueError:  # no name that the hub could have
        return False
