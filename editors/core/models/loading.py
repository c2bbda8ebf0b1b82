"""Loads models from folders and by hub name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from editors.core.errors import InputError
from editors.core.models.architectures import architecture
from editors.core.models.encoder_decoder import EncoderDecoder
from editors.core.models.model import LanguageModel
from editors.core.models.weights import Weights

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# The files of a model folder that decide what the model says.
CONTENT = re.compile(r".*\.(safetensors|model)|(config|generation_config|tokenizer.*|vocab|merges|added_tokens"
                     r"|special_tokens_map)\.(json|txt)")


ADAPTER = "adapter_config.json"


def load_config(path: str | Path) -> PretrainedConfig:
    """A model's configuration alone. Raises `InputError` where it is not found, its type is not supported, or its
    weights are not all that the model is: quantised, or with an adapter beside them."""
    from transformers import AutoConfig

    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise not_loaded(path, error) from error
    architecture(config, str(path))
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"model '{path}' is quantised: edits need weights in float32, bfloat16 or float16; take the "
                         "checkpoint that it was made of")
    if (Path(path) / ADAPTER).exists():
        raise InputError(f"model '{path}' holds a PEFT adapter ({ADAPTER}): merge it into the weights first "
                         "(`merge_and_unload`), or take it out of the folder")
    return config


def load_model(path: str | Path, *, name: str | None = None, device: str = "cpu",
               dtype: str = "float32") -> LanguageModel:
    """Loads a model from a local folder or by hub name. Raises `InputError` where it is not found or unsupported."""
    def build(config: PretrainedConfig) -> Any:
        return read_weights(auto_class(config), path, dtype=getattr(torch, dtype), use_safetensors=True).to(device)

    return load_by(path, build, name=name)


def read_weights(kind: Any, path: str | Path, *, partly: bool = False, **settings: Any) -> Any:
    """The module of a library's class `kind` at a path. Raises `InputError` where the weights there are not the
    module's: then the library would fill in random ones. `partly`: there may be more, such as an encoder's old head."""
    module, found = kind.from_pretrained(path, output_loading_info=True, ignore_mismatched_sizes=True, **settings)
    refuse_other_weights(path, found["missing_keys"], () if partly else found["unexpected_keys"],
                         found["mismatched_keys"])
    return module


def refuse_other_weights(path: str | Path, missing: Iterable[str], left_over: Iterable[str],
                         reshaped: Iterable[tuple[str, Any, Any]] = ()) -> None:
    """Raises `InputError`, naming weights, unless there are none that a model lacks, has not, or (name, shape there,
    shape of the model) has in another shape."""
    def some(names: Iterable[str]) -> str:
        first, *rest = sorted(names)
        return f"'{first}'" + (f" and {len(rest)} more" if rest else "")

    problems = [f"{what}: {some(names)}" for what, names in (("missing", list(missing)), ("left over", list(left_over)))
                if names]
    if misshapen := sorted((name, list(there), list(wanted)) for name, there, wanted in reshaped):
        name, there, wanted = misshapen[0]
        more = f", and {len(misshapen) - 1} more have another shape" if len(misshapen) > 1 else ""
        problems.append(f"'{name}' is {there} and should be {wanted}{more}")
    if problems:
        raise InputError(f"cannot load model '{path}': its weights are not those of its config.json; "
                         f"{'; '.join(problems)}. Fetch the folder whole again, or mend its config.json")


def auto_class(config: PretrainedConfig) -> Any:
    """The library's class that makes a model of this configuration."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def load_by(path: str | Path, build: Callable[[PretrainedConfig], Any], *, name: str | None = None,
            weights: Weights | None = None) -> LanguageModel:
    """The model at `path` whose module is made by `build`, and whose weights are read by `weights`. Raises like
    `load_model`."""
    from transformers import AutoTokenizer

    config = load_config(path)  # before any weight is read
    try:
        with _quiet():
            module = build(config)
            tokenizer: Any = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise not_loaded(path, error) from error
    wrapper = EncoderDecoder if config.is_encoder_decoder else LanguageModel
    return wrapper(module, tokenizer, name or str(path), model_digest(path), weights)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's notes, such as the one that a T5 v1.1 has a head of its own."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def not_loaded(path: str | Path, error: Exception, what: str = "model") -> InputError:
    """The error, with the cure, for a model (or `what` it is) that could not be read."""
    if Path(path).is_dir():
        return InputError(f"cannot load {what} '{path}': {error}")
    if Path(path).is_absolute() or str(path).startswith("."):
        return InputError(f"cannot load {what} '{path}': there is no such folder")
    return InputError(f"cannot load {what} '{path}': there is no such folder, and it is not in the local hub cache nor "
                      f"could it be downloaded. Check the name, or fetch it where there is a network "
                      f"(`hf download {path}`) and name the folder instead ({str(error).splitlines()[0]})")


def model_digest(path: str | Path) -> str:
    """A digest of a folder's weights, configuration and tokenizer; of hub name and commit where there is no folder."""
    from transformers import AutoConfig

    digest = hashlib.sha256()
    folder = Path(path)
    if not folder.is_dir():
        commit = getattr(AutoConfig.from_pretrained(path), "_commit_hash", None)
        return hashlib.sha256(f"{path}@{commit}".encode()).hexdigest()[:16]
    for file in sorted(folder.iterdir()):
        if file.is_file() and CONTENT.fullmatch(file.name):
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()[:16]
