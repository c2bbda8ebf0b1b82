"""The library that models are made of, Hugging Face's, as all of us use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def auto_class(config: PretrainedConfig) -> Any:
    """The library's class that makes a model of this configuration."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def save_folder(folder: Path, module: Any, tokenizer: Any, **more: Any) -> None:
    """Writes a model as the library does, which would first have accelerate ask whether DeepSpeed has wrapped it: to
    ask loads DeepSpeed, wherever it is installed, which takes seconds and warns where there is no GPU."""
    from transformers import modeling_utils

    library: Any = modeling_utils
    unwrap, library.unwrap_model = library.unwrap_model, lambda plain, **_: plain
    try:
        module.save_pretrained(folder, **more)
    finally:
        library.unwrap_model = unwrap
    tokenizer.save_pretrained(folder)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's bars, and its notes, such as the one that a T5 v1.1 has a head of its own."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
