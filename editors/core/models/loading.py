"""Loads models from folders and by hub name; or looks at them without reading their weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from editors.core.errors import InputError
from editors.core.models.architectures import architecture
from editors.core.models.checkpoint import Checkpoint
from editors.core.models.configuration import CONFIG, GENERATION, LIBRARY_CODE, model_config
from editors.core.models.conversion import in_safetensors
from editors.core.models.encoder_decoder import EncoderDecoder
from editors.core.models.fitting import read_weights, refuse_misfits
from editors.core.models.folder import ModelFolder
from editors.core.models.hub import model_folder
from editors.core.models.hugging_face import auto_class, quiet
from editors.core.models.model import LanguageModel
from editors.core.models.weights import Weights

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig

ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class FoundModel:
    """A model of which all was looked at but the values of its weights; `checkpoint` is None where these have not been
    fetched from the hub yet."""

    folder: ModelFolder
    config: PretrainedConfig
    generation: GenerationConfig | None
    tokenizer: Any
    checkpoint: Checkpoint | None
    digest: str


def find_model(path: str | Path, *, dtype: str = "float32", weights: bool = True) -> FoundModel:
    """Looks at a model in a folder or by hub name, of which `weights` says whether they are fetched too.

    Raises `InputError`, naming the file or the weights, for what would keep it from being loaded in this dtype: a
    configuration that is not supported, weights that are missing, cut short or not the configuration's, no tokenizer.
    """
    folder = model_folder(path, weights=weights)
    config = _config(folder)
    if dtype in architecture(config, folder.name).overflows:
        raise InputError(f"model '{path}' is of type '{config.model_type}', whose hidden states are too large for "
                         f"{dtype}; take 'dtype: bfloat16' or 'dtype: float32'")
    generation, tokenizer = _generation(folder), _tokenizer(folder)
    with folder.reading():
        checkpoint = Checkpoint.of(folder) if weights else fetched_weights(folder)
        if checkpoint is not None:
            refuse_misfits(config, checkpoint)
        return FoundModel(folder, config, generation, tokenizer, checkpoint, folder.digest())


def load_config(path: str | Path) -> PretrainedConfig:
    """A model's configuration alone. Raises `InputError` where it is not found, its type is not supported, or its
    weights are not all that the model is: quantised, or with an adapter beside them."""
    return _config(model_folder(path, weights=False))


def model_digest(path: str | Path) -> str:
    """A digest of a folder's weights, configuration and tokenizer; of hub name and commit where there is no folder."""
    return model_folder(path, weights=False).digest()


def load_model(path: str | Path, *, name: str | None = None, device: str = "cpu",
               dtype: str = "float32") -> LanguageModel:
    """Loads a model from a local folder or by hub name. Raises `InputError` like `find_model`."""
    def build(config: PretrainedConfig, checkpoint: Checkpoint) -> Any:
        module = read_weights(auto_class(config), checkpoint.folder, config=config, dtype=getattr(torch, dtype))
        return module.to(device)

    return load_by(path, build, name=name, dtype=dtype)


def load_reader(path: str | Path, *, name: str | None = None) -> LanguageModel:
    """A model as far as reading goes: it can encode texts, and do nothing else. No weights are looked at. Raises
    `InputError` like `find_model`."""
    folder = model_folder(path, weights=False)
    config, tokenizer = copy.deepcopy(_config(folder)), _tokenizer(folder)
    architecture(config, folder.name).shorten(config, 1)  # what there is of other blocks is never run
    with folder.reading(CONFIG, Exception), torch.device("meta"), quiet():
        module = auto_class(config).from_config(config, **LIBRARY_CODE)
    return _wrapper(config)(module, tokenizer, name or str(path))


def load_skeleton(path: str | Path, *, name: str | None = None,
                  dtype: str = "float32") -> tuple[LanguageModel, FoundModel]:
    """A model of which no weight is read, its modules being on the meta device; and where it was found, its checkpoint
    in safetensors. Raises `InputError` like `find_model`."""
    found = find_model(path, dtype=dtype)
    assert found.checkpoint is not None
    with found.folder.reading(CONFIG, Exception), torch.device("meta"), quiet():
        module = auto_class(found.config).from_config(found.config, **LIBRARY_CODE)
    model = _wrapper(found.config)(module, found.tokenizer, name or str(path), found.digest)
    if model.own_head and model.output_table is model.input_table:  # the library ties that of any T5
        module.get_output_embeddings().weight = torch.nn.Parameter(torch.empty_like(model.input_table), False)
    return model, replace(found, checkpoint=in_safetensors(found.checkpoint, found.digest))


def load_by(path: str | Path, build: Callable[[PretrainedConfig, Checkpoint], Any], *, dtype: str,
            name: str | None = None, weights: Weights | None = None) -> LanguageModel:
    """The model at `path` whose module is made by `build` from a configuration and a checkpoint in safetensors, and
    whose weights are read by `weights`. Raises `InputError` like `find_model`."""
    found = find_model(path, dtype=dtype)
    assert found.checkpoint is not None
    with found.folder.reading(), quiet():
        module = build(found.config, in_safetensors(found.checkpoint, found.digest))
    if found.generation is not None:
        module.generation_config = found.generation
    return _wrapper(found.config)(module, found.tokenizer, name or str(path), found.digest, weights)


def _wrapper(config: PretrainedConfig) -> type[LanguageModel]:
    return EncoderDecoder if config.is_encoder_decoder else LanguageModel


def fetched_weights(folder: ModelFolder) -> Checkpoint | None:
    """A folder's weights by their headers; None where it is a hub's and they, or some, have not been fetched. Raises
    `InputError` where a local folder has none, or they are damaged."""
    if folder.commit is not None:
        try:
            files = folder.weight_files()
        except InputError:
            return None
        if not all(map(folder.has, files.names)):
            return None
    return Checkpoint.of(folder)


# --- what is beside the weights


def _config(folder: ModelFolder) -> PretrainedConfig:
    config = model_config(folder)
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"model '{folder.name}' is quantised: edits need weights in float32, bfloat16 or float16; "
                         "take the checkpoint that it was made of")
    if adapter := next(filter(folder.has, ADAPTER), None):
        raise InputError(f"model '{folder.name}' holds a PEFT adapter ({adapter}): merge it into the weights first "
                         "(`merge_and_unload`), or take it out of the folder")
    return config


def _generation(folder: ModelFolder) -> GenerationConfig | None:
    from transformers import GenerationConfig

    if not folder.has(GENERATION):
        return None
    with folder.reading(GENERATION, Exception):
        generation: GenerationConfig = GenerationConfig.from_pretrained(folder.path)
    return generation


def _tokenizer(folder: ModelFolder) -> Any:
    """That of a model that is edited, where a subject's tokens have to be found."""
    tokenizer = load_tokenizer(folder)
    if not tokenizer.is_fast:
        raise folder.refusal(f"its tokenizer ({type(tokenizer).__name__}) does not tell where in a text its tokens "
                             "are; save it as tokenizer.json, if it can be")
    return tokenizer


def load_tokenizer(folder: ModelFolder) -> Any:
    """A folder's tokenizer. Raises `InputError` where there is none that can be read, and read with."""
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(folder.path, **LIBRARY_CODE)
            tokenizer("a")
    except Exception as error:  # of files that are damaged, any; and its words tell of packages that would not help
        there = ", ".join(sorted(file.name for file in folder.path.iterdir() if re.match(
            r"tokenizer|spiece|vocab|merges|special_tokens|added_tokens", file.name)))
        raise folder.refusal(f"its tokenizer cannot be read ({there}): files are missing, damaged, or do not go "
                             "together; fetch them again") from error
    # Without its files, the library makes a tokenizer that knows the special tokens and nothing else.
    files = set(type(tokenizer).vocab_files_names.values()) - {TOKENIZER}
    if files and not folder.has(TOKENIZER) and not all(map(folder.has, files)):
        raise folder.refusal(f"it has no tokenizer ({TOKENIZER}, or {' and '.join(sorted(files))}); copy the files of "
                             "the one that it was trained with into the folder")
    return tokenizer
