"""A model as far as reading goes: its tokenizer and its configuration. No weights are read or made."""

from __future__ import annotations

from pathlib import Path

import torch

from editors.core.models.encoder_decoder import EncoderDecoder
from editors.core.models.library import auto_class
from editors.core.models.loading import find_model
from editors.core.models.model import LanguageModel


def load_reader(path: str | Path, *, name: str | None = None) -> LanguageModel:
    """A model of a local folder or hub name that can encode texts, and do nothing else. Raises like `find_model`."""
    found = find_model(path, weights=False)
    with found.folder.reading(Exception), torch.device("meta"):
        module = auto_class(found.config).from_config(found.config)
    return (EncoderDecoder if found.config.is_encoder_decoder else LanguageModel)(
        module, found.tokenizer, name or str(path), found.digest)
