"""`editfleet show`: what a patch file is.

    python -m jobs.show patch.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from editors.core.printable import CELL, printable
from jobs.console import console, count, exit_codes, shorten

if TYPE_CHECKING:
    from editors.core.patches.patch import Patch, Term


def show(
    patch: Annotated[Path, typer.Argument(help="A saved patch.")],
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
) -> None:
    """Show which model a patch is for, by which editor, which edits it makes and what it changes."""
    with exit_codes():
        from editors.core.patches.patch import Patch

        found = Patch.load(patch)
        if as_json:
            typer.echo(json.dumps(_told(patch, found), indent=1))
            return
        for line in _lines(patch, found):
            console().print(line, soft_wrap=True)
        if found:
            console().print(_table(found))


def _told(file: Path, patch: Patch) -> dict[str, Any]:
    from editors.core.patches.norms import term_norm

    origin = patch.origin
    return {"file": str(file), "bytes": file.stat().st_size, "origin": origin and origin.model_dump(mode="json"),
            "facts_digest": origin and origin.facts_digest, "info": dict(patch.info),
            "in_weights": _in_weights(patch),
            "terms": [{"kind": term.kind, "module": term.module, "size": _size(term), "norm": term_norm(term)}
                      for term in patch.compact().terms]}


def _lines(file: Path, patch: Patch) -> Iterator[str]:
    yield f"{file}: {file.stat().st_size / 1e6:.2f} MB, {count(len(patch.terms), 'term')}"
    yield ("changes nothing: the model stays as it is" if not patch else
           "changes weights: `export` writes it into the model, or as an adapter (--as peft)" if _in_weights(patch) else
           "changes no weights but adds to the model: it keeps to this file, and `export` refuses it")
    if (origin := patch.origin) is None:
        yield "model: it does not say for which it was made, nor by what"
        return
    yield f"model: {origin.model.name} (digest {origin.model.digest}), {origin.model.dtype}"
    for making in origin.makings:
        if making.editor is None:
            yield "editor: unknown"
            continue
        versions = ", ".join(f"{name} {number}" for name, number in making.versions.items())
        learned = f", artefact {making.artefact}" if making.artefact else ""
        yield f"editor: {making.editor}, version {making.version}, seed {making.seed}{learned} ({versions})"
        yield f"  settings: {json.dumps(making.settings)}"
    yield f"edits: {len(origin.facts)} (digest {origin.facts_digest})"
    facts = [f"{printable(fact.prompt, CELL)} → {printable(fact.target, CELL)}" for fact in origin.facts]
    yield from shorten(f"  {number}: {fact}" for number, fact in enumerate(facts, 1))


def _in_weights(patch: Patch) -> bool:
    from editors.core.patches.patch import Dense, LowRank

    return all(isinstance(term, LowRank | Dense) for term in patch.terms)


def _table(patch: Patch) -> Table:
    """What all edits together add to which module."""
    from editors.core.patches.norms import term_norm

    table = Table("module", "kind", "size", "norm")
    for term in patch.compact().terms:
        norm = term_norm(term)
        table.add_row(term.module or "-", term.kind, _size(term), "-" if norm is None else f"{norm:.4g}")
    return table


def _size(term: Term) -> str:
    from editors.core.patches.patch import LowRank, Neurons, Route

    match term:
        case LowRank():
            return f"rank {term.a.shape[1]}"
        case Neurons():
            return count(len(term.keys), "neuron")
        case Route():
            return count(len(term.memory), "entrie" if len(term.memory) > 1 else "entry")
    return " x ".join(map(str, term.tensors()["weight"].shape))


if __name__ == "__main__":
    from jobs.cli import main

    main("show")
