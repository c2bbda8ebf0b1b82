"""What a folder's configuration says: looked at before the library reads it, which would ask to run code and takes
some wrong values for right ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from editors.core.errors import quoted
from editors.core.models.architectures import architecture
from editors.core.models.folder import ModelFolder

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CONFIG, GENERATION, TOKENIZER_CONFIG = "config.json", "generation_config.json", "tokenizer_config.json"
OBJECTS = (CONFIG, GENERATION, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json")
LIBRARY_CODE = {"trust_remote_code": False}  # for every call that loads: without it, the library may ask at a terminal

REDIRECTING = {"attribute_map", "transformers_weights"}
EPSILONS = ("layer_norm_epsilon", "layer_norm_eps", "rms_norm_eps")  # as families name theirs
MOST = 10**7  # of anything that is counted in a configuration


def refuse_code(folder: ModelFolder) -> None:
    """Raises `InputError` where a folder's configuration cannot be read, or names Python code beside the library's, of
    which none is ever run."""
    folder.refuse_what_is_no_file()
    for file in filter(folder.has, OBJECTS):
        if "auto_map" in read_object(folder, file):
            raise folder.refusal(f"'{file}' asks for Python code of its own (auto_map), and EditFleet runs none; take "
                                 "a model of the library's own classes, or, where this is one, take 'auto_map' out")


def read_object(folder: ModelFolder, file: str) -> dict[str, Any]:
    """A file that holds a JSON object. Raises `InputError` where it does not."""
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"it holds {constant}, which is no number")

    with folder.reading(file):
        try:
            found = json.loads((folder.path / file).read_text(encoding="utf-8"), parse_constant=refuse)
        except RecursionError:
            raise folder.damaged(file) from None
        except ValueError as error:
            raise folder.refusal(f"'{file}' is no JSON ({error}); fetch it again") from None
    if not isinstance(found, dict):
        raise folder.refusal(f"'{file}' should be a JSON object and is {quoted(json.dumps(found))}; fetch it again")
    return found


def library_config(folder: ModelFolder) -> Any:
    """The configuration of any model that the library knows. Raises `InputError` like `refuse_code`, and where the
    library makes nothing of it."""
    from transformers import AutoConfig

    refuse_code(folder)
    if not folder.has(CONFIG):
        raise folder.refusal(f"it has no '{CONFIG}'; fetch the folder whole")
    said = read_object(folder, CONFIG)
    for field in REDIRECTING & said.keys():
        if said[field] is not None:
            raise folder.refusal(f"'{CONFIG}': {field} would have the library read something else than was looked at; "
                                 "take it out")
    labels = said.get("num_labels")
    if isinstance(labels, int) and labels > 10**4:  # the library would name each of them
        raise folder.refusal(f"'{CONFIG}': num_labels is {labels}; take it out, or fetch the file again")
    try:
        return AutoConfig.from_pretrained(folder.path, **LIBRARY_CODE)
    except Exception as error:  # of values that are of another type, any
        with folder.reading(_guilty(said), Exception):
            raise error


def _guilty(said: Mapping[str, Any]) -> str:
    """The file, and which of its fields keeps the library from making a configuration, if it is one alone."""
    from transformers import CONFIG_MAPPING

    def taken(without: str) -> bool:
        try:
            CONFIG_MAPPING[said["model_type"]].from_dict({name: said[name] for name in said if name != without})
        except Exception:
            return False
        return True

    field = next(filter(taken, said), None)
    return CONFIG if field is None else f"{CONFIG}: {field}"


def model_config(folder: ModelFolder) -> PretrainedConfig:
    """The configuration of a model of a family that editors know. Raises `InputError` like `library_config`, and for
    a size or a token that no model has."""
    config: PretrainedConfig = library_config(folder)
    family = architecture(config, folder.name)

    def whole(field: str, least: int, most: int, *, optional: bool = False) -> None:
        value = getattr(config, field, None)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return
        if not (optional and value is None):
            raise folder.refusal(f"'{CONFIG}': {field} is {quoted(json.dumps(value))} and should be a whole number "
                                 f"from {least} to {most}; fetch it again")

    for field in family.sizes:
        whole(field, 1, MOST)
    limits = family.limits(config)
    for field in limits:
        whole(field, 1, limits[field])
    if "decoder_start_token_id" in family.tokens and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = config.pad_token_id  # with which T5 begins, where a file does not say
    for field in family.tokens:
        whole(field, 0, config.vocab_size - 1)
    whole("pad_token_id", 0, MOST, optional=True)
    whole("max_position_embeddings", 1, MOST, optional=True)
    for field in EPSILONS:
        if (value := getattr(config, field, 0)) < 0:
            raise folder.refusal(f"'{CONFIG}': {field} is {value}, less than 0; fetch it again")
    config.output_hidden_states = False  # or the library looks for them in every pass; none of ours asks for them
    return config
