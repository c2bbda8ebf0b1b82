"""Editing methods: functions from a frozen model and edit requests to patches.

>>> from editors import EditRequest, Patch, edit, load_model, overlay, save_merged
>>> model = load_model("evaluators/testbed/models/gptj")  # a folder, or a name on the hub
>>> request = EditRequest(prompt="Pofun Debinov was born in", subject="Pofun Debinov", target="Zesmilport")
>>> patch = edit(model, "ft", [request])
>>> batch = model.collate([model.encode(request.prompt, request.target)])
>>> right = lambda model: bool((model.target_logits(batch).argmax(-1) == batch.target).all())
>>> right(model)
False
>>> with overlay(model, patch):  # the model as if it were edited; no weight is written
...     right(model)
True

What is kept is a small file, which knows its model; or a model of its own, which transformers loads:

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     patch.save(f"{folder}/edit.safetensors")
...     again = Patch.load(f"{folder}/edit.safetensors")
...     save_merged("evaluators/testbed/models/gptj", again, f"{folder}/edited", dtype="float32")
...     right(load_model(f"{folder}/edited"))
True
>>> again.origin.model.digest == model.digest, [fact.target for fact in again.origin.facts]
(True, ['Zesmilport'])

Those who use edits need a dozen names: `load_model`, `EditRequest`, `edit`, `edit_each`, `overlay`, `Patch`,
`save_edited`, `save_merged`, `save_adapter`, `EDITORS`, `InputError` and `CaseError`. The others are for those who
write editors. What is exported is loaded when it is first asked for: naming an editor, or a mistyped name, imports no
torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from editors.core.errors import CaseError, InputError
from editors.core.models.architectures import architecture
from editors.core.models.layouts import Stack
from editors.core.registry import look_up
from editors.core.requests import EditRequest

if TYPE_CHECKING:
    from editors.core.artefacts import Artefact
    from editors.core.editor import Editor, EditorConfig, Resources
    from editors.core.models.loading import load_model
    from editors.core.models.model import LanguageModel
    from editors.core.patches.adapter import save_adapter
    from editors.core.patches.overlay import overlay
    from editors.core.patches.patch import Patch
    from editors.core.patches.saving import save_edited
    from editors.core.patches.streaming import save_merged

__all__ = ["EDITORS", "Artefact", "CaseError", "EditRequest", "Editor", "EditorConfig", "InputError", "LanguageModel",
           "Patch", "Resources", "check_settings", "edit", "edit_each", "get_editor", "load_model", "overlay", "preset",
           "resolve_config", "save_adapter", "save_edited", "save_merged"]

_LAZY = {
    "Artefact": "editors.core.artefacts",
    "Editor": "editors.core.editor",
    "EditorConfig": "editors.core.editor",
    "LanguageModel": "editors.core.models.model",
    "Patch": "editors.core.patches.patch",
    "Resources": "editors.core.editor",
    "load_model": "editors.core.models.loading",
    "overlay": "editors.core.patches.overlay",
    "save_adapter": "editors.core.patches.adapter",
    "save_edited": "editors.core.patches.saving",
    "save_merged": "editors.core.patches.streaming",
}


def __getattr__(name: str) -> Any:
    """Exported names of modules that need torch (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'editors' has no attribute '{name}'")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


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
    editor: type[Editor[Any]] = look_up("editor", name, EDITORS)
    return editor


def edit_each(model: LanguageModel, editor: str, requests: Sequence[EditRequest], *, resources: Resources | None = None,
              seed: int = 0, **settings: Any) -> list[Patch]:
    """One patch per request, each as if it were the only one, by the editor of that name with the settings of the
    model's preset, and those given here instead.

    Each patch notes the model's digest and its request, and is refused on another model. `resources` are what some
    methods need beside the model: second moments, or what they learned. Raises `InputError` for names and settings that
    do not exist, and `CaseError` for a request that this model cannot read.
    """
    made = _make(model, editor, resources, seed, settings)
    return [made.signed(patch, [request]) for patch, request in zip(made.edit_each(requests), requests, strict=True)]


def edit(model: LanguageModel, editor: str, requests: Sequence[EditRequest], *, resources: Resources | None = None,
         seed: int = 0, **settings: Any) -> Patch:
    """One patch that makes all edits at once; else like `edit_each`. Raises `InputError` for methods that cannot."""
    made = _make(model, editor, resources, seed, settings)
    return made.signed(made.edit(requests), requests)


def _make(model: LanguageModel, editor: str, resources: Resources | None, seed: int,
          settings: Mapping[str, Any]) -> Editor[Any]:
    return get_editor(editor)(model, resolve_config(editor, model.module.config, settings), resources, seed)


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
    try:
        config: EditorConfig = editor.Config.model_validate({**preset(name, model_config), **(overrides or {})})
    except ValidationError as error:
        raise _refusal(name, error.errors()) from None
    stacks: dict[Stack, tuple[int, ...]] = {"decoder": config.edited_layers, "encoder": config.edited_encoder_layers}
    for stack, layers in stacks.items():
        depth = architecture(model_config, "").depth(model_config, stack)
        if len(set(layers)) < len(layers):
            raise InputError(f"configuration of editor '{name}': a layer of the {stack} is named twice in "
                             f"{list(layers)}")
        for layer in layers:
            if not 0 <= layer < depth:
                has = f"the model's {stack} has layers 0 to {depth - 1}" if depth else f"the model has no {stack}"
                raise InputError(f"configuration of editor '{name}': layer {layer} does not exist; {has}")
    return config


def check_settings(name: str, overrides: Mapping[str, Any]) -> None:
    """Raises `InputError` for settings of an editor that no model makes right: before one is looked at."""
    try:
        get_editor(name).Config.model_validate(overrides)
    except ValidationError as error:
        # What is missing, or fits no other setting, may be another in a preset.
        if wrong := [problem for problem in error.errors() if problem["loc"] and problem["type"] != "missing"]:
            raise _refusal(name, wrong) from None


def _refusal(name: str, problems: Sequence[ErrorDetails]) -> InputError:
    written = [str(problem["loc"][0]) for problem in problems if problem["loc"] and problem["type"] != "missing"]
    return InputError(f"configuration of editor '{name}': {'; '.join(map(_explain, problems))}",
                      at=("config", written[0]) if written else ())


def _explain(problem: ErrorDetails) -> str:
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"{field}: required, because there is no preset for this model"
    if problem["type"] == "unknown_field":
        return problem["msg"]
    return f"{field}: {problem['msg']} (got {problem['input']!r})"
