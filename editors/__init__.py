"""Editing methods: functions from a frozen model and edit requests to patches.

    editor = get_editor("rome")(model, resolve_config("rome", model.module.config))
    patches = editor.edit_each(requests)
    with overlay(model, patches, rows):
        ...
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from editors.core.errors import InputError, unknown

if TYPE_CHECKING:
    from editors.core.editor import Editor, EditorConfig

EDITORS = {
    "calinet": "editors.calinet:CaliNET",
    "ft": "editors.ft:FineTuning",
    "identity": "editors.identity:Identity",
    "ke": "editors.ke:KE",
    "kn": "editors.kn:KnowledgeNeurons",
    "memit": "editors.memit:MEMIT",
    "mend": "editors.mend:MEND",
    "rome": "editors.rome:ROME",
    "serac": "editors.serac:SERAC",
    "t-patcher": "editors.t_patcher:TPatcher",
}


def get_editor(name: str) -> type[Editor[Any]]:
    """The editor class registered under `name`. Raises `InputError` with the nearest name for an unknown one."""
    if name not in EDITORS:
        raise unknown("editor", name, EDITORS)
    module, attribute = EDITORS[name].split(":")
    editor: type[Editor[Any]] = getattr(importlib.import_module(module), attribute)
    return editor


@cache
def _families() -> tuple[dict[str, Any], ...]:
    folder = Path(__file__).parent / "configs"
    return tuple(yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.yaml")))


def preset(name: str, model_config: Any) -> dict[str, Any]:
    """Default settings of an editor for the family a Hugging Face model configuration belongs to; {} for others."""
    for family in _families():
        if all(getattr(model_config, field, None) == value for field, value in family["applies_to"].items()):
            return dict(family["editors"].get(name) or {})
    return {}


def resolve_config(name: str, model_config: Any, overrides: Mapping[str, Any] | None = None) -> EditorConfig:
    """The validated configuration of an editor for a model: the family's preset under the user's overrides.

    Raises `InputError` naming each field that is unknown, missing or out of range.
    """
    editor = get_editor(name)
    if editor.decoder_only and getattr(model_config, "is_encoder_decoder", False):
        raise InputError(f"editor '{name}' is for decoder-only models: it writes where a decoder recalls a subject's "
                         f"facts, and a {model_config.model_type} reads the subject in its encoder. Leave it out for "
                         "this model")
    schema = editor.Config
    for field in overrides or {}:
        if field not in schema.model_fields:
            raise unknown(f"field of editor '{name}'", field, schema.model_fields)
    try:
        config: EditorConfig = schema.model_validate({**preset(name, model_config), **(overrides or {})})
    except ValidationError as error:
        raise InputError(f"configuration of editor '{name}': {'; '.join(map(_explain, error.errors()))}") from None
    for layer in config.edited_layers:
        if not 0 <= layer < model_config.num_hidden_layers:
            raise InputError(f"configuration of editor '{name}': layer {layer} does not exist; the model has layers "
                             f"0 to {model_config.num_hidden_layers - 1}")
    return config


def _explain(problem: ErrorDetails) -> str:
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"{field}: required, because there is no preset for this model"
    return f"{field}: {problem['msg']} (got {problem['input']!r})"
