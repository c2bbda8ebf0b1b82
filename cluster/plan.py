"""From a campaign to tasks: what has to be computed, in which order, each task under an id that is its identity.

    baseline ──┐
               ├──> score      (statistics only where the editor asks for them)
    statistics ┘

A task's id is a digest of all that determines its result: the model's content and dtype, the cases' content, the
method with its whole configuration, versions, seeds, and the ids of what it needs. Same id, same result.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from transformers import PretrainedConfig

from cluster.campaign import Campaign, EditorSpec, ModelSpec
from cluster.state import Node
from cluster.store import CampaignRecord, DatasetRecord, Key, Output, TaskRecord
from editors import get_editor, resolve_config
from editors.core import statistics
from editors.core.errors import unknown
from editors.core.loading import load_config, model_digest
from evaluators import metrics, protocols
from evaluators.cases import Case
from evaluators.datasets import TESTBED_CORPUS, Dataset, corpus, load_dataset
from evaluators.testbed import MODELS, model_path

CORPUS_SAMPLE = 200  # texts of an endless corpus that tell whether it is still the same

# Rough costs, in tokens read: what a case's probes take, and what making an edit takes on top.
PROBES, EDIT = 200, 5000


def digest(value: object) -> str:
    """24 hexadecimal digits that identify a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class ModelRef:
    """Where a model is, and which it is. `key` alone counts: two paths to the same weights are one model."""

    path: str
    digest: str
    dtype: str

    @property
    def key(self) -> str:
        return f"{self.digest}-{self.dtype}"


@dataclass(frozen=True)
class EditorRef:
    """A method and its whole configuration, as JSON."""

    name: str
    version: int
    config: Mapping[str, Any]

    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "config": self.config}


@dataclass(frozen=True)
class Chunk:
    """Consecutive cases of a data set, the first of which is case number `first`, counted from 1."""

    dataset: str
    first: int
    cases: tuple[Case, ...]

    @cached_property
    def digest(self) -> str:
        return digest([case.model_dump(mode="json") for case in self.cases])

    def __str__(self) -> str:
        return f"{self.dataset}, cases {self.first}-{self.first + len(self.cases) - 1}"


@dataclass(frozen=True)
class Task(ABC):
    """One piece of work on one model. `title` is for people and no part of the identity."""

    kind: ClassVar[str]
    output: ClassVar[Output]
    title: str
    model: ModelRef

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """All that determines the result, as JSON."""

    @property
    @abstractmethod
    def cost(self) -> int:
        """A rough guess, in tokens read."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the tasks whose results it reads."""
        return ()

    @property
    def edits(self) -> int:
        return 0

    @cached_property
    def id(self) -> str:
        return digest({"kind": self.kind, "model": self.model.key, "needs": self.needs, **self.identity()})

    @property
    def key(self) -> Key:
        return Key(self.output, self.id)

    def node(self) -> Node:
        return Node(self.id, self.model.key, self.needs, self.cost)

    def record(self) -> TaskRecord:
        return TaskRecord(id=self.id, kind=self.kind, output=self.output, title=self.title, edits=self.edits)


@dataclass(frozen=True)
class BaselineTask(Task):
    """The unedited model's outputs on all probes of a chunk."""

    kind = "baseline"
    output = "baselines"
    chunk: Chunk

    def identity(self) -> dict[str, Any]:
        return {"version": protocols.VERSIONS["baseline"], "cases": self.chunk.digest}

    @property
    def cost(self) -> int:
        return PROBES * len(self.chunk.cases)


@dataclass(frozen=True)
class StatisticsTask(Task):
    """Second moments of the FFN keys of some layers over a text."""

    kind = "statistics"
    output = "artefacts"
    layers: tuple[int, ...]
    corpus: str
    corpus_digest: str
    tokens: int

    def identity(self) -> dict[str, Any]:
        return {"version": statistics.VERSION, "layers": self.layers, "corpus": self.corpus_digest,
                "tokens": self.tokens}

    @property
    def cost(self) -> int:
        return self.tokens


@dataclass(frozen=True)
class ScoreTask(Task):
    """The edits of a chunk under one protocol, and their scores. `editor_title` and `model_title` go into its rows."""

    kind = "score"
    output = "rows"
    editor: EditorRef
    chunk: Chunk
    protocol: str
    seed: int
    baseline: BaselineTask
    statistics: StatisticsTask | None
    editor_title: str
    model_title: str

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.baseline.id, *([self.statistics.id] if self.statistics else []))

    def identity(self) -> dict[str, Any]:
        return {"editor": self.editor.identity(), "cases": self.chunk.digest, "seed": self.seed,
                "protocol": {self.protocol: protocols.VERSIONS[self.protocol]}, "metrics": metrics.VERSION,
                "titles": [self.editor_title, self.model_title, self.chunk.dataset]}

    @property
    def cost(self) -> int:
        return (PROBES + EDIT) * len(self.chunk.cases)

    @property
    def edits(self) -> int:
        return len(self.chunk.cases)


@dataclass(frozen=True)
class Plan:
    """All tasks of a campaign by id, what others need before the others, and the data sets they were cut from."""

    campaign: Campaign
    tasks: Mapping[str, Task]
    datasets: tuple[Dataset, ...]

    def record(self, started: datetime) -> CampaignRecord:
        """The plan as it is kept in a store."""
        return CampaignRecord(
            name=self.campaign.name, digest=digest([self.campaign.name, *self.tasks]), started=started,
            datasets=tuple(DatasetRecord(name=data.spec.name, cases=len(data.cases), skipped=data.skipped)
                           for data in self.datasets),
            tasks=tuple(task.record() for task in self.tasks.values()))


def plan(campaign: Campaign) -> Plan:
    """All tasks of a campaign. Loads the data sets, but no model.

    Raises `InputError`, with its place in the campaign's file, for what would keep its tasks from running: an unknown
    model, a data set that cannot be read, a configuration that does not fit the model.
    """
    datasets = []
    for number, spec in enumerate(campaign.datasets):
        with campaign.at("datasets", number):
            datasets.append(load_dataset(spec))
    chunks = [Chunk(data.spec.name, start + 1, data.cases[start: start + campaign.chunk])
              for data in datasets for start in range(0, len(data.cases), campaign.chunk)]
    planner = _Planner(campaign, chunks)
    tasks: dict[str, Task] = {}
    for number in range(len(campaign.models)):
        for task in planner.tasks(number):
            tasks.setdefault(task.id, task)
    return Plan(campaign, tasks, tuple(datasets))


class _Planner:
    def __init__(self, campaign: Campaign, chunks: Sequence[Chunk]) -> None:
        self.campaign, self.chunks = campaign, chunks

    def tasks(self, number: int) -> Iterator[Task]:
        """The tasks of one model."""
        spec = self.campaign.models[number]
        with self.campaign.at("models", number):
            model, config = _resolve_model(spec)
        baselines = [BaselineTask(f"baseline of {spec.name}: {chunk}", model, chunk) for chunk in self.chunks]
        yield from baselines
        for place, wanted in enumerate(self.campaign.editors):
            with self.campaign.at("editors", place):
                editor, layers = _resolve_editor(wanted, config)
            statistics = self._statistics(spec.name, model, layers) if layers else None
            if statistics:
                yield statistics
            for protocol in self.campaign.protocols:
                for baseline in baselines:
                    yield ScoreTask(f"{wanted.title} on {spec.name}: {baseline.chunk}", model, editor, baseline.chunk,
                                    protocol, self.campaign.seed, baseline, statistics, wanted.title, spec.name)

    def _statistics(self, name: str, model: ModelRef, layers: tuple[int, ...]) -> StatisticsTask:
        text = self.campaign.statistics
        return StatisticsTask(f"second moments of {name}: layers {', '.join(map(str, layers))}", model, layers,
                              text.corpus, self._corpus_digest, text.tokens)

    @cached_property
    def _corpus_digest(self) -> str:
        """Identifies a file by all of its texts, the endless built-in corpus by its first."""
        name = self.campaign.statistics.corpus
        running = hashlib.sha256()
        with self.campaign.at("statistics", "corpus"):
            for text in islice(corpus(name), CORPUS_SAMPLE if name == TESTBED_CORPUS else None):
                running.update(text.encode() + b"\n")
        return running.hexdigest()[:24]


def _resolve_model(spec: ModelSpec) -> tuple[ModelRef, PretrainedConfig]:
    path = str(spec.path or model_path(spec.name))
    if spec.path is None and spec.name not in MODELS and "/" not in path and not Path(path).is_dir():
        raise unknown("model", spec.name, MODELS)
    config = load_config(path)
    return ModelRef(path, model_digest(path), spec.dtype), config


def _resolve_editor(spec: EditorSpec, model_config: PretrainedConfig) -> tuple[EditorRef, tuple[int, ...]]:
    """The editor as it will run, and the layers whose statistics it needs."""
    editor = get_editor(spec.name)
    config = resolve_config(spec.name, model_config, spec.config)
    layers = tuple(sorted(editor.statistics_layers(config)))
    return EditorRef(spec.name, editor.version, config.model_dump(mode="json")), layers
