"""The page that goes with a written model or adapter: what it was made of, how and with what."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from editors.core.patches.origin import Making
from editors.core.printable import in_markdown
from evaluators.cases import Skipped

if TYPE_CHECKING:
    from editors.core.patches.patch import Patch

KINDS = {
    "merged": "# {0}, edited\n\nA copy of {0} with edits in its weights, written by `editfleet export`. It is loaded "
              "like {0}.\n",
    "peft": "# Edits of {0}\n\nA LoRA adapter with edits of {0}, written by `editfleet export`. PEFT puts it on {0}, "
            "and it is for no other model.\n"}


def card_of(name: str, digest: str, dtype: str, patch: Patch, *, form: Literal["merged", "peft"],
            files: Sequence[Path] = (), skipped: Sequence[Skipped] = ()) -> str:
    """Of a model with a patch, or the adapter that is one: which edits by which editors, and which were left out."""
    parts = [KINDS[form].format(in_markdown(name)), f"- base model: {in_markdown(name)} (digest {digest}), {dtype}"]
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
