"""The paths that a campaign names, made to mean the same in any folder."""

from __future__ import annotations

import os
from itertools import starmap
from pathlib import Path
from typing import TypeVar

from cluster.campaign.datasets import DatasetEntry
from cluster.campaign.spec import FILES, Campaign, EditorSpec, ModelSpec, StatisticsSpec
from editors import get_editor
from editors.core.files import expanded
from evaluators.datasets import TESTBED_CORPUS

S = TypeVar("S", bound=StatisticsSpec)


def with_whole_paths(campaign: Campaign) -> Campaign:
    """The campaign with its paths resolved: relative ones start at the folder of the file that they are written in,
    those of data sets and of texts at `data`, where that is given. A model that is no folder there has a name, not a
    path."""
    folder = campaign.folder
    data = campaign.data and _resolved(folder("data"), campaign.data)

    def locate(path: str, *location: str | int) -> str:
        if data is None or _is_whole(path):
            return _resolved(folder(*location), path)
        return f"{data.rstrip('/')}/{path}"

    def text(corpus: str, *location: str | int) -> str:
        return corpus if corpus == TESTBED_CORPUS else locate(corpus, *location)

    def model(number: int, spec: ModelSpec) -> ModelSpec:
        return spec.model_copy(update={"path": spec.path and _model(folder("models", number, "path"), spec.path)})

    def dataset(number: int, spec: DatasetEntry) -> DatasetEntry:
        files = [name for name in FILES if getattr(spec, name) and not (spec.hub and name == "train")]  # there a split
        changed = {name: locate(getattr(spec, name), "datasets", number, name) for name in files}
        hub = spec.hub and _model(folder("datasets", number, "hub"), spec.hub)
        return spec.model_copy(update={**changed, "hub": hub})

    def editor(number: int, spec: EditorSpec) -> EditorSpec:
        """With its artefact, its text, and the models that its settings name."""
        own = ("editors", number)
        moved = {name: there for name, value in spec.config.items() if isinstance(value, str)
                 and (there := _model(folder(*own, "config", name), value)) != value}
        named = get_editor(spec.name).Config.models if moved else ()  # loads torch
        config = {**spec.config, **{name: there for name, there in moved.items() if name in named}}
        artefact = spec.artefact and _resolved(folder(*own, "artefact"), spec.artefact)
        return spec.model_copy(update={"config": config, "artefact": artefact, "statistics": spec.statistics
                                       and statistics(spec.statistics, *own, "statistics", "corpus")})

    def statistics(spec: S, *location: str | int) -> S:
        if "corpus" not in spec.model_fields_set:
            return spec
        return spec.model_copy(update={"corpus": text(spec.corpus, *location)})

    nvme = campaign.workers.nvme and _resolved(folder("workers", "nvme"), campaign.workers.nvme)
    return campaign.model_copy(update={
        "models": tuple(starmap(model, enumerate(campaign.models))),
        "datasets": tuple(starmap(dataset, enumerate(campaign.datasets))),
        "editors": tuple(starmap(editor, enumerate(campaign.editors))),
        "statistics": statistics(campaign.statistics, "statistics", "corpus"),
        "measures": campaign.measures.each(
            lambda measure: measure.located(lambda corpus: text(corpus, "measures", measure.name))),
        "workers": campaign.workers.model_copy(update={"nvme": nvme})})


def _is_whole(path: str) -> bool:
    return "://" in path or expanded(path).is_absolute()


def _resolved(folder: Path, path: str) -> str:
    return path if "://" in path else os.path.realpath(folder / expanded(path))


def _model(folder: Path, name: str) -> str:
    is_path = name.startswith((".", "~", "/")) or os.path.isdir(folder / name)
    return _resolved(folder, name) if is_path else name
