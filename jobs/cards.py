"""The page that goes with a written model: what it was made of, how and with what."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.plan.tasks import StreamTask
from editors.core.printable import in_markdown
from evaluators.cases import Case, Skipped

if TYPE_CHECKING:
    from editors.core.models.model import LanguageModel
    from editors.core.patches.patch import Patch

PACKAGES = ("editfleet", "torch", "transformers")


def card_of_edits(task: StreamTask, model: LanguageModel, cases: Sequence[Case], skipped: Sequence[Skipped],
                  versions: Mapping[str, str]) -> str:
    """Of a model with the edits of these cases, and without those that were skipped."""
    editor = task.method.editor
    how = ", all at once" if task.protocol.joint else ", one after another" if len(cases) > 1 else ""
    parts = [_head(model), f"- editor: {editor.name}, version {editor.version}, seed {task.method.seed}{how}",
             f"- settings: {_code(editor.config)}", _versions(versions), f"\n## Edits ({len(cases)})\n",
             *(f"- {in_markdown(case.id)}: {_quoted(case.prompt)} → {_quoted(case.target_new)}" for case in cases)]
    if skipped:
        parts += [f"\n## Left out ({len(skipped)})\n",
                  *(f"- {in_markdown(case.case_id)}: {in_markdown(case.reason)}" for case in skipped)]
    return "\n".join(parts) + "\n"


def card_of_patches(model: LanguageModel, files: Sequence[Path], patch: Patch) -> str:
    """Of a model with saved patches, of which no more is known than they say of themselves."""
    found = {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}
    return "\n".join([_head(model), f"- patches: {', '.join(in_markdown(file.name) for file in files)}",
                      f"- of themselves they say: {_code(dict(patch.info))}", _versions(found)]) + "\n"


def _head(model: LanguageModel) -> str:
    dtype = str(model.module.dtype).removeprefix("torch.")
    name = in_markdown(model.name)
    return (f"# {name}, edited\n\nA copy of {name} with edits in its weights, written by `editfleet export`. It is "
            f"loaded like {name}.\n\n- base model: {name} (digest {model.digest}), {dtype}")


def _versions(versions: Mapping[str, str]) -> str:
    return f"- versions: {', '.join(f'{name} {number}' for name, number in versions.items())}"


def _quoted(text: str) -> str:
    return in_markdown(json.dumps(text, ensure_ascii=False))


def _code(value: Mapping[str, Any]) -> str:
    return "`" + json.dumps(value).replace("`", "\\u0060") + "`"
