"""The paths that a campaign names, made to mean the same in any folder."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.campaign.spec import FILES, Campaign, DatasetEntry, EditorSpec
from editors import get_editor
from editors.core.files import expanded
from evaluators.datasets import TESTBED_CORPUS


def with_paths_from(folder: Path, campaign: Campaign) -> Campaign:
    """The campaign with its paths resolved: relative ones start at `folder`, the campaign's own, those of data sets and
    of texts at `data`, where that is given. A model that is no folder there has a name, not a path."""
    data = campaign.data and _resolved(folder, campaign.data)

    def locate(path: str) -> str:
        if data is None or _is_whole(path):
            return _resolved(folder, path)
        return f"{data.rstrip('/')}/{path}"

    def read_text(corpus: str) -> str:
        return corpus if corpus == TESTBED_CORPUS else locate(corpus)

    def read_there(spec: DatasetEntry) -> DatasetEntry:
        files = [name for name in FILES if getattr(spec, name) and not (spec.hub and name == "train")]  # there a split
        changed = {name: locate(getattr(spec, name)) for name in files}
        return spec.model_copy(update={**changed, "hub": spec.hub and _model(folder, spec.hub)})

    nvme = campaign.workers.nvme
    return campaign.model_copy(update={
        "models": tuple(spec.model_copy(update={"path": spec.path and _model(folder, spec.path)})
                        for spec in campaign.models),
        "datasets": tuple(map(read_there, campaign.datasets)),
        "editors": tuple(_editor(folder, spec) for spec in campaign.editors),
        "statistics": campaign.statistics.model_copy(update={"corpus": read_text(campaign.statistics.corpus)}),
        "measures": campaign.measures.each(lambda measure: measure.located(read_text)),
        "workers": campaign.workers.model_copy(update={"nvme": nvme and _resolved(folder, nvme)})})


def _is_whole(path: str) -> bool:
    return "://" in path or expanded(path).is_absolute()


def _resolved(folder: Path, path: str) -> str:
    return path if "://" in path else os.path.realpath(folder / expanded(path))


def _model(folder: Path, name: str) -> str:
    is_path = name.startswith((".", "~", "/")) or os.path.isdir(folder / name)
    return _resolved(folder, name) if is_path else name


def _editor(folder: Path, spec: EditorSpec) -> EditorSpec:
    """With its artefact, and the models that its settings name."""
    moved = {name: there for name, value in spec.config.items()
             if isinstance(value, str) and (there := _model(folder, value)) != value}
    named = get_editor(spec.name).Config.models if moved else ()  # loads torch
    config = {**spec.config, **{name: there for name, there in moved.items() if name in named}}
    return spec.model_copy(update={"config": config, "artefact": spec.artefact and _resolved(folder, spec.artefact)})
