"""What a campaign names: whether it exists, what it is, and whether it can do what it is asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.campaign.datasets import DatasetEntry
from cluster.campaign.spec import Campaign, EditorSpec, ModelSpec
from cluster.plan.refs import ArtefactRef, ModelRef
from editors import EDITORS, check_settings, get_editor
from editors.core.errors import InputError, unknown
from evaluators.models import model_path, named_model
from evaluators.protocols.base import Protocol

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from editors.core.editor import Editor, EditorConfig


def check_names(campaign: Campaign) -> None:
    """Data sets and editors may name only models and protocols that are listed."""
    listed: dict[str, list[str]] = {"models": [model.name for model in campaign.models],
                                    "protocols": [protocol.name for protocol in campaign.protocols]}
    places: list[tuple[str, int, str, Sequence[str] | None]] = [
        ("datasets", number, "models", data.models) for number, data in enumerate(campaign.datasets)]
    for number, editor in enumerate(campaign.editors):
        places += [("editors", number, "models", editor.models), ("editors", number, "protocols", editor.protocols)]
    for part, number, field, names in places:
        for name in names or ():
            if name not in listed[field]:
                with campaign.at(part, number, field):
                    raise unknown(f"{field.removesuffix('s')} of this campaign", name, listed[field])


def check_editors(campaign: Campaign) -> None:
    """Settings that are wrong for any model are told before data sets and models are read. Loads torch."""
    for number, editor in enumerate(campaign.editors):
        with campaign.at("editors", number):
            check_settings(editor.name, editor.config)


def is_for(model: ModelSpec, entry: DatasetEntry | EditorSpec) -> bool:
    return entry.models is None or model.name in entry.models


def check_place(name: str, field: str) -> None:
    """Raises `InputError` where a name that is to be the hub's is that of a folder or file where the command happens to
    run. Those of what is beside the campaign are whole paths by now."""
    if not Path(name).is_absolute() and os.path.exists(name):
        raise InputError(f"'{name}' is not beside the campaign, but in the current folder, where workers are not; "
                         f"write '{field}: {Path(name).resolve()}' for it")


def resolve_model(spec: ModelSpec, threads: int = 1) -> tuple[ModelRef, PretrainedConfig]:
    path = str(named_model(spec.name) if spec.path is None else model_path(spec.path))
    check_place(path, "path")
    from editors.core.models.loading import find_model  # loads torch

    found = find_model(path, dtype=spec.dtype, weights=False)
    return ModelRef.of(path, found.digest, spec.dtype, found.config, threads), found.config


def check_joint(method: type[Editor], spec: EditorSpec, asked: Sequence[Protocol]) -> None:
    if method.joint or not any(protocol.joint for protocol in asked):
        return
    others = [protocol.name for protocol in asked if not protocol.joint] or ["single"]
    joint = [name for name in EDITORS if get_editor(name).joint]
    raise InputError(f"editor '{spec.name}' makes one edit at a time, so it cannot edit in batches; editors that can: "
                     f"{', '.join(joint)}. Add 'protocols: [{', '.join(others)}]' to it, or leave out batches and long "
                     "steps")


def resolve_artefact(method: type[Editor], spec: EditorSpec, config: EditorConfig,
                     model: ModelRef) -> ArtefactRef | None:
    """The file an editor is given instead of training it. Raises `InputError` where it is damaged or for something
    else."""
    if spec.artefact is None:
        return None
    if not method.trained:
        raise InputError(f"editor '{spec.name}' is not trained; leave 'artefact: {spec.artefact}' out")
    from editors.core.artefacts import Artefact  # loads torch

    artefact = Artefact.load(spec.artefact)
    artefact.check(spec.name, method.training_version, model.digest)
    artefact.settled(method.Config, **config.model_dump())
    wanted = config.model_dump(mode="json")
    for name in spec.config:  # what presets say gives way to what it was trained with
        if name in artefact.config and artefact.config[name] != wanted[name]:
            raise InputError(f"the artefact was trained with {name} {artefact.config[name]}, not {wanted[name]}: leave "
                             f"{name} out, or have the editor trained anew")
    return ArtefactRef(spec.artefact, artefact.digest)
