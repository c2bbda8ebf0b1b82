"""Patch files as commands take them: read, added up, and held against the model that they are to be put on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from editors.core.errors import InputError
from jobs.console import warn

if TYPE_CHECKING:
    from editors.core.models.model import LanguageModel
    from editors.core.patches.patch import Patch

Precision = Literal["float32", "bfloat16", "float16"]
ModelName = Annotated[str, typer.Option("--model", help="A built-in model, a folder or a hub name.")]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1 ...")]
Artefact = Annotated[Path | None, typer.Option(
    help="What SERAC learned (`editfleet train`), for a patch that answers by its second model; without it, what comes "
         "with EditFleet for a built-in model.")]


def read_patches(files: Sequence[Path]) -> Patch:
    """The sum of saved patches, in order. Raises `InputError`, naming the file, where they are of different models."""
    from editors.core.patches.patch import Patch

    together = Patch()
    for file in files:
        patch = Patch.load(file)
        if patch.origin is None:
            warn(f"'{file}' does not say which model it was made for; whether it fits is told by its shapes alone")
        try:
            together += patch
        except InputError as error:
            raise InputError(f"'{file}': {error}") from error
    return together


def read_model(name: str, device: str, dtype: str) -> LanguageModel:
    """A model by name. Raises `InputError` where it cannot be loaded, or has outputs that are not finite."""
    from evaluators.models import named_model

    path = named_model(name)  # before torch is loaded
    from editors.core.models.loading import load_model
    from evaluators.scoring.judge import check_text

    model = load_model(path, name=name, device=device, dtype=dtype)
    check_text(model)
    return model


def put_on(model: LanguageModel, patch: Patch, artefact: Path | None) -> Patch:
    """The patch as the model can carry it, which knows the second model that it answers by, where there is one. Raises
    `InputError` where the model is another than the patch was made for."""
    from editors import get_editor
    from editors.core.artefacts import Artefact
    from editors.core.editor import Resources
    from editors.core.patches.fitting import refuse_misfits
    from editors.core.patches.patch import Route
    from evaluators.testbed.learned import find_learned

    refuse_misfits(model, [patch])
    if any(isinstance(term, Route) for term in patch.terms):
        artefact = artefact or find_learned("serac", model.digest)
        if artefact is None:
            raise InputError("the patch answers by a second model: name the file that holds it, what SERAC learned, "
                             "with --artefact")
        learned, serac = Artefact.load(artefact), get_editor("serac")
        serac(model, serac.Config.model_validate(learned.config), Resources(artefact=learned))
    return patch.to(model.device).compact()
