"""The page that goes with a written model or adapter: what it was made of, how and with what."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from editors.core.models.folder import ModelFolder
from editors.core.patches.origin import Making
from editors.core.printable import in_markdown
from evaluators.cases import Skipped
from evaluators.models import known_of

if TYPE_CHECKING:
    from editors.core.patches.patch import Patch

KINDS = {
    "merged": "# {0}, edited\n\nA copy of {0} with edits in its weights, written by `editfleet export`. It is loaded "
              "like {0}.\n",
    "peft": "# Edits of {0}\n\nA LoRA adapter with edits of {0}, written by `editfleet export`. PEFT puts it on {0}, "
            "and it is for no other model.\n"}


HEAD = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)  # of a model card: what the hub reads, as YAML


def head_of(name: str, folder: ModelFolder) -> dict[str, str]:
    """What is known of the model that was edited, for the head of the card: its name on the hub and its licence, as its
    own card or we say it."""
    found: dict[str, str] = {"base_model": folder.name} if folder.commit else {}
    own = folder.path / "README.md"
    if own.is_file() and (head := HEAD.match(own.read_text(encoding="utf-8", errors="replace"))):
        with suppress(yaml.YAMLError, AttributeError):  # where it is no YAML, or no mapping
            found |= {key: value for key, value in yaml.safe_load(head[1]).items()
                      if str(key).startswith("license") and isinstance(value, str)}
    return found | known_of(name)


def card_of(name: str, digest: str, dtype: str, patch: Patch, *, form: Literal["merged", "peft"],
            head: Mapping[str, str], unpacked: str = "", files: Sequence[Path] = (),
            skipped: Sequence[Skipped] = ()) -> str:
    """Of a model with a patch, or the adapter that is one: which edits by which editors, and which were left out.
    `unpacked` is the GGUF file that its weights come from."""
    parts = [KINDS[form].format(in_markdown(name)), f"- base model: {in_markdown(name)} (digest {digest}), {dtype}"]
    if head:
        parts.insert(0, f"---\n{yaml.safe_dump(dict(head), sort_keys=True)}---\n")
    if unpacked:
        rounded = f"; {in_markdown(head['base_model'])}, of which it was made, answers otherwise by its rounding"
        parts.append(f"- its weights: those of the GGUF file {in_markdown(unpacked)}, which transformers unpacks by "
                     f"`from_pretrained(FOLDER, gguf_file=NAME)`{rounded if 'base_model' in head else ''}")
    if "license" in head:
        parts.append(f"- licence of the base model: {in_markdown(head['license'])}")
    if files:
        parts.append(f"- patches: {', '.join(in_markdown(file.name) for file in files)}")
    if patch.origin is None:
        parts.append(f"- of themselves they say: {_code(dict(patch.info))}")
    else:
        parts += [line for making in patch.origin.makings for line in _made(making)]
        facts = patch.origin.facts
        parts += [f"\n## Edits ({len(facts)})\n", *(
            f"- {in_markdown(fact.id)}: {_quoted(fact.prompt)} → {_quoted(fact.target)}" for fact in facts)]
    if skipped:
        parts += [f"\n## Left out ({len(skipped)})\n",
                  *(f"- {in_markdown(case.case_id)}: {in_markdown(case.reason)}" for case in skipped)]
    return "\n".join(parts) + "\n"


def _made(making: Making) -> Iterator[str]:
    if making.editor is None:
        yield "- editor: unknown"
        return
    together = all(len(part.facts) > 1 for part in making.parts)
    edits = sum(len(part.facts) for part in making.parts)
    how = ", all at once" if together and len(making.parts) == 1 else ", one after another" if edits > 1 else ""
    yield f"- editor: {making.editor}, version {making.version}, seed {making.seed}{how}"
    yield f"- settings: {_code(making.settings)}"
    yield f"- versions: {', '.join(f'{name} {number}' for name, number in making.versions.items())}"


def _quoted(text: str) -> str:
    return in_markdown(json.dumps(text, ensure_ascii=False))


def _code(value: Mapping[str, Any]) -> str:
    return "`" + json.dumps(value).replace("`", "\\u0060") + "`"
