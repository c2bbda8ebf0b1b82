"""`editfleet export`: an edited model for use without EditFleet, as a folder that transformers loads, or as a LoRA
adapter that PEFT puts on the unedited one.

    python -m jobs.export testbed-gptj --patch patch.safetensors --out edited
    python -m jobs.export testbed-gptj --patch patch.safetensors --as peft --out adapter
    python -m jobs.export testbed-gptj --editor memit --data testbed-cloze --limit 100 --out edited
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from editors import EDITORS, get_editor
from editors.core.errors import InputError
from editors.core.files import check_vacant
from evaluators.cases import Skipped
from jobs import making
from jobs.cards import card_of, head_of
from jobs.console import check_device, console, count, exit_codes
from jobs.patches import Device, Precision, read_patches
from jobs.progress import saying

if TYPE_CHECKING:
    from editors.core.patches.patch import Patch

Form = Literal["merged", "peft"]


def export(
    model: Annotated[str, typer.Argument(help="A built-in model, a folder or a hub name.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder for the edited model.")],
    form: Annotated[Form, typer.Option("--as", help="The whole model, or a LoRA adapter for PEFT.")] = "merged",
    editor: Annotated[str | None, typer.Option(help="The editing method, one that changes weights.")] = None,
    data: making.Facts = None,
    limit: making.Limit = None,
    format: making.Format = None,
    prompt: making.Prompt = None,
    subject: making.Subject = None,
    target: making.Target = None,
    patch: Annotated[list[Path] | None, typer.Option(help="A saved patch, not edits; several add up.")] = None,
    stream: making.Stream = False,
    set: making.Set = None,
    seed: making.Seed = 0,
    artefact: making.Artefact = None,
    train: making.Train = None,
    corpus: making.Corpus = None,
    tokens: making.Tokens = 100_000,
    rank: Annotated[int | None, typer.Option(min=1, help="Of an adapter: of what a dense change is cut to.")] = None,
    device: Device = "cpu",
    dtype: Annotated[Precision | None, typer.Option(
        help="The weights' precision, to edit in and to write; else float32, or what the patch was made in.")] = None,
) -> None:
    """Write a model with edits, or saved patches, in its weights, or these alone as an adapter."""
    with exit_codes():
        check_vacant(out)
        one = {"prompt": prompt, "subject": subject, "target": target}
        _check_source({"data": data, "prompt": prompt, "patch": patch}, one, editor)
        if rank is not None and form != "peft":
            raise InputError(f"--rank {rank} is for adapters: add '--as peft', or leave it out")
        if editor is None:
            if stream or set:
                raise InputError("--stream and --set are for edits that are made here, and a patch is made already")
            _write(model, read_patches(patch or []), out, form, rank, dtype, files=patch or [])
            return
        _check_editor(editor)
        settings = making.settings_of(set)
        check_device(device)
        with tempfile.TemporaryDirectory() as folder, saying() as say:
            edits = making.edits_of(data, one, Path(folder), limit=limit, format=format, train=train)
            made = making.make_edits(making.campaign_of(
                edits, model=model, dtype=dtype or "float32", editor=editor, settings=settings, artefact=artefact,
                seed=seed, corpus=corpus, tokens=tokens, stream=stream), device, Path(folder), say)
        edits_made, skipped = made.patch.to("cpu"), made.skipped
        del made  # and with it the model: what is written comes from its files
        _write(model, edits_made, out, form, rank, dtype, skipped=skipped)


def _check_source(sources: dict[str, Any], one: dict[str, str | None], editor: str | None) -> None:
    """Raises `InputError` unless the options say, in one way, what is to be written."""
    given = [f"--{name}" for name, value in sources.items() if value]
    if len(given) != 1:
        raise InputError(f"{' and '.join(given) or 'no edit'} given: take --data for a data set's edits, --prompt, "
                         "--subject and --target for one edit, or --patch for saved patches")
    making.check_one(one, alone=given == ["--prompt"])
    if (editor is None) != (given == ["--patch"]):
        raise InputError("a patch is made already: leave --editor out" if editor else
                         f"--editor is missing: {', '.join(_exportable())}")


def _exportable() -> list[str]:
    return [name for name in EDITORS if get_editor(name).in_weights]


def _check_editor(name: str) -> None:
    if not get_editor(name).in_weights:
        raise InputError(f"edits by '{name}' cannot be written into a model's weights: they add neurons to it or route "
                         f"questions to a second model. Editors that can: {', '.join(_exportable())}")


def _write(name: str, patch: Patch, out: Path, form: Form, rank: int | None, dtype: Precision | None, *,
           files: Sequence[Path] = (), skipped: Sequence[Skipped] = ()) -> None:
    """Writes the folder and says what it is. No weight of the model is in memory but the one that is written."""
    from editors.core.models.hub import model_folder
    from editors.core.models.loading import load_skeleton, model_digest
    from editors.core.patches.adapter import RANK, save_adapter
    from editors.core.patches.streaming import save_merged
    from evaluators.models import named_model

    path, edit = named_model(name), patch.compact()
    what = count(len(patch.origin.facts), "edit") if patch.origin else count(len(files), "patche" if files[1:] else
                                                                             "patch")
    with saying() as say:
        say(f"reading {name}")
        folder = model_folder(path, weights=False)
        told: dict[str, Any] = {"form": form, "head": head_of(name, folder), "files": files, "skipped": skipped,
                                "unpacked": Path(path).name if str(path).endswith(".gguf") else ""}
        if form == "peft":
            model, _ = load_skeleton(path, name=name)
            say(f"writing {out}")
            # where PEFT finds it, too; but a GGUF file as it is called, and not the folder that it was unpacked into
            lost = save_adapter(model, edit, out, rank=rank or RANK, base=told["head"].get("base_model", str(path)),
                                card=card_of(name, model.digest, "float32", patch, **told))
        else:
            wanted = dtype or (patch.origin.model.dtype if patch.origin else "float32")
            card = card_of(name, model_digest(path), wanted, patch, **told)
            say(f"writing {out}")
            save_merged(path, edit, out, name=name, dtype=wanted, card=card)
    if form == "peft":
        console().print(f"a LoRA adapter for {name} with {what}: {out}", soft_wrap=True)
        for module, error in lost.items():
            console().print(f"  {module}: cut to rank {rank or RANK}, which loses {100 * error:.2g} % of the change",
                            soft_wrap=True)
    else:
        console().print(f"{name} with {what} in its weights: {out}", soft_wrap=True)


if __name__ == "__main__":
    from jobs.cli import main

    main("export")
