"""A model as far as reading goes: its tokenizer and its configuration. No weights are read or made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from editors.core.models.encoder_decoder import EncoderDecoder
from editors.core.models.loading import auto_class, load_config, not_loaded
from editors.core.models.model import LanguageModel


def load_reader(path: str | Path, *, name: str | None = None) -> LanguageModel:
    """A model of a local folder or hub name that can encode texts, and do nothing else. Raises like `load_model`."""
    from transformers import AutoTokenizer

    config = load_config(path)
    try:
        with torch.device("meta"):
            module = auto_class(config).from_config(config)
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise not_loaded(path, error) from error
    return (EncoderDecoder if config.is_encoder_decoder else LanguageModel)(module, tokenizer, name or str(path))
