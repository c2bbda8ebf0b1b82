"""From a campaign to tasks: what has to be computed, and in which order.

    baseline ──────────┐
                       ├──> score
    statistics ─┬──────┤               (statistics and train only where the editor asks for them)
    train ──────┘      │
        └─> stream ─> stream ─> ...    (sequential editing: a segment hands its patch to the next, and to scoring)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path

from transformers import PretrainedConfig

from cluster.campaign import Campaign, DatasetEntry, EditorSpec, ModelSpec, ProtocolSpec
from cluster.store import CampaignRecord, DatasetRecord, Key
from cluster.work import (
    ArtefactRef,
    BaselineTask,
    Chunk,
    EditorRef,
    Method,
    ModelRef,
    ScoreTask,
    StatisticsTask,
    StreamTask,
    Task,
    TrainTask,
    digest,
)
from editors import EDITORS, get_editor, resolve_config
from editors.base import Editor, EditorConfig
from editors.core.artefacts import Artefact
from editors.core.errors import InputError, unknown
from editors.core.loading import load_config, model_digest
from evaluators.datasets import TESTBED_CORPUS, Dataset, corpus, load_dataset, training_spec
from evaluators.testbed import MODELS, model_path

CORPUS_SAMPLE = 200  # texts of an endless corpus that tell whether it is still the same


@dataclass(frozen=True)
class Plan:
    """All tasks of a campaign by id, what others need before the others, and the data sets they were cut from."""

    campaign: Campaign
    tasks: Mapping[str, Task]
    datasets: tuple[Dataset, ...]
    notes: tuple[str, ...] = ()

    def record(self, started: datetime) -> CampaignRecord:
        """The plan as it is kept in a store."""
        return CampaignRecord(
            name=self.campaign.name, digest=digest([self.campaign.name, *self.tasks]), started=started,
            datasets=tuple(DatasetRecord(name=data.spec.name, cases=len(data.cases), skipped=data.skipped)
                           for data in self.datasets),
            tasks=tuple(task.record() for task in self.tasks.values()), notes=self.notes)


def plan(campaign: Campaign) -> Plan:
    """All tasks of a campaign. Loads the data sets, but no model.

    Raises `InputError`, with its place in the campaign's file, for what would keep its tasks from running: an unknown
    model, a data set that cannot be read, a configuration that does not fit the model, an editor that cannot do what a
    protocol asks for, training cases that are missing.
    """
    _check_names(campaign)
    datasets = []
    for number, spec in enumerate(campaign.datasets):
        with campaign.at("datasets", number):
            datasets.append(load_dataset(spec))
    notes = tuple(note for data in datasets for note in _check_counts(campaign, data))
    planner = _Planner(campaign, datasets)
    tasks: dict[str, Task] = {}
    for number in range(len(campaign.models)):
        for task in planner.tasks(number):
            tasks.setdefault(task.id, task)
    return Plan(campaign, tasks, tuple(datasets), notes)


def _check_names(campaign: Campaign) -> None:
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


def _check_counts(campaign: Campaign, data: Dataset) -> Iterator[str]:
    """Refuses more edits than there are cases; tells which cases make no whole batch."""
    name, cases = data.spec.name, len(data.cases)
    for number, protocol in enumerate(campaign.protocols):
        for count in protocol.counts:
            if count > cases:
                with campaign.at("protocols", number, "sizes" if protocol.sizes else "lengths"):
                    raise InputError(f"{protocol.name} editing with {count} edits needs as many cases, and data set "
                                     f"'{name}' has {cases}; raise its limit or take {count} off the list")
            if protocol.name == "batch" and (left := cases % count):
                yield (f"{name}: batches of {count} leave out the last {left} of {cases} cases, which make no whole "
                       "batch")


class _Planner:
    def __init__(self, campaign: Campaign, datasets: Sequence[Dataset]) -> None:
        self.campaign, self.datasets = campaign, datasets
        self._training: dict[int, Chunk] = {}

    def tasks(self, number: int) -> Iterator[Task]:
        """The tasks of one model."""
        spec = self.campaign.models[number]
        with self.campaign.at("models", number):
            model, config = _resolve_model(spec)
        baselines = {place: [BaselineTask(f"baseline of {spec.name}: {chunk}", model, chunk)
                             for chunk in self.cut(place, self.campaign.chunk)]
                     for place, entry in enumerate(self.campaign.datasets) if _is_for(spec, entry)}
        for tasks in baselines.values():
            yield from tasks
        for place, wanted in enumerate(self.campaign.editors):
            if _is_for(spec, wanted):
                yield from self._editor_tasks(place, spec, model, config, baselines)

    def _editor_tasks(self, place: int, spec: ModelSpec, model: ModelRef, model_config: PretrainedConfig,
                      baselines: Mapping[int, Sequence[BaselineTask]]) -> Iterator[Task]:
        wanted = self.campaign.editors[place]
        with self.campaign.at("editors", place):
            method = get_editor(wanted.name)
            config = resolve_config(wanted.name, model_config, wanted.config)
            method.check(config, model_config)
            asked = [protocol for protocol in self.campaign.protocols
                     if wanted.protocols is None or protocol.name in wanted.protocols]
            _check_joint(method, wanted, asked)
        with self.campaign.at("editors", place, "artefact"):
            artefact = _resolve_artefact(method, wanted, model)
        editor = EditorRef(wanted.name, method.version, config.model_dump(mode="json"))
        layers = tuple(sorted(method.statistics_layers(config)))
        statistics = self._statistics(spec.name, model, layers) if layers else None
        if statistics:
            yield statistics
        for data, cut in baselines.items():
            training = None
            if method.trained and artefact is None:
                with self.campaign.at("editors", place):
                    training = self._train(data, spec, model, method, editor, config)
                yield training
            made = Method(editor, self.campaign.seed, statistics, training.key if training else None,
                          artefact)
            maker = _Maker(self, data, wanted, spec, model, made, cut)
            for protocol in asked:
                yield from maker.tasks(protocol)

    def _train(self, data: int, spec: ModelSpec, model: ModelRef, method: type[Editor], editor: EditorRef,
               config: EditorConfig) -> TrainTask:
        name = self.datasets[data].spec.name
        return TrainTask(f"training of {editor.name} on {spec.name}: {name}", model, editor,
                         method.training_settings(config), self._training_cases(data, editor.name), self.campaign.seed)

    def _training_cases(self, data: int, editor: str) -> Chunk:
        """What editors learn from before they are judged on a data set; read once."""
        if data not in self._training:
            entry = self.campaign.datasets[data]
            try:
                cases = load_dataset(training_spec(entry, self.campaign.training.limit)).cases
            except InputError as error:
                raise InputError(f"editor '{editor}' has to be trained first: {error}") from error
            self._training[data] = Chunk(entry.name, 1, cases)
        return self._training[data]

    def cut(self, data: int, size: int, end: int | None = None) -> list[Chunk]:
        """The first `end` cases of a data set (default: all) in pieces; the last may be short."""
        found = self.datasets[data]
        cases = found.cases[:end]
        return [Chunk(found.spec.name, start + 1, cases[start: start + size]) for start in range(0, len(cases), size)]

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


@dataclass(frozen=True)
class _Maker:
    """Makes the tasks of one editor on one model and one data set."""

    planner: _Planner
    data: int
    wanted: EditorSpec
    spec: ModelSpec
    model: ModelRef
    method: Method
    baselines: Sequence[BaselineTask]

    def tasks(self, protocol: ProtocolSpec) -> Iterator[Task]:
        for count in protocol.counts:
            if protocol.name == "single":
                yield from (self._score(protocol, 1, baseline.chunk) for baseline in self.baselines)
            elif protocol.name == "batch":
                yield from self._batches(protocol, count)
        if protocol.name == "sequential":
            yield from self._stream(protocol)

    def _batches(self, protocol: ProtocolSpec, size: int) -> Iterator[Task]:
        """As many whole batches in a task as a chunk holds, but at least one."""
        planner = self.planner
        whole = len(planner.datasets[self.data].cases) // size * size
        for chunk in planner.cut(self.data, max(1, planner.campaign.chunk // size) * size, whole):
            yield self._score(protocol, size, chunk)

    def _stream(self, protocol: ProtocolSpec) -> Iterator[Task]:
        """Segments between lengths, and at each length the scores of all edits so far."""
        data, before = self.planner.datasets[self.data], None
        for start, end in pairwise([0, *protocol.counts]):
            chunk = Chunk(data.spec.name, start + 1, data.cases[start:end])
            segment = StreamTask(f"{self._title} one after another: {chunk}", self.model, self.method, chunk, before)
            before = segment.key
            yield segment
            for piece in self.planner.cut(self.data, self.planner.campaign.chunk, end):
                yield self._score(protocol, end, piece, before)

    @property
    def _title(self) -> str:
        return f"{self.wanted.title} on {self.spec.name}"

    def _score(self, protocol: ProtocolSpec, count: int, chunk: Chunk, stream: Key | None = None) -> ScoreTask:
        baselines = tuple(task for task in self.baselines
                          if task.chunk.first <= chunk.last and chunk.first <= task.chunk.last)
        how = {"single": "", "batch": f" {count} at once", "sequential": f" after {count} edits"}[protocol.name]
        return ScoreTask(f"{self._title}{how}: {chunk}", self.model, self.method, chunk, protocol.name, count,
                         baselines, stream, self.wanted.title, self.spec.name)


def _is_for(model: ModelSpec, entry: DatasetEntry | EditorSpec) -> bool:
    return entry.models is None or model.name in entry.models


def _resolve_model(spec: ModelSpec) -> tuple[ModelRef, PretrainedConfig]:
    path = str(spec.path or model_path(spec.name))
    if spec.path is None and spec.name not in MODELS and "/" not in path and not Path(path).is_dir():
        raise unknown("model", spec.name, MODELS)
    config = load_config(path)
    return ModelRef(path, model_digest(path), spec.dtype), config


def _check_joint(method: type[Editor], spec: EditorSpec, asked: Sequence[ProtocolSpec]) -> None:
    if method.joint or all(protocol.name != "batch" for protocol in asked):
        return
    others = [protocol.name for protocol in asked if protocol.name != "batch"] or ["single"]
    joint = [name for name in EDITORS if get_editor(name).joint]
    raise InputError(f"editor '{spec.name}' makes one edit at a time, so it cannot edit in batches; editors that can: "
                     f"{', '.join(joint)}. Add 'protocols: [{', '.join(others)}]' to it, or leave out batch")


def _resolve_artefact(method: type[Editor], spec: EditorSpec, model: ModelRef) -> ArtefactRef | None:
    """The file an editor is given instead of training it. Raises `InputError` where it is for something else."""
    if spec.artefact is None:
        return None
    if not method.trained:
        raise InputError(f"editor '{spec.name}' is not trained; leave 'artefact: {spec.artefact}' out")
    Artefact.describe(spec.artefact).check(spec.name, method.version, model.digest)
    return ArtefactRef(spec.artefact, Artefact.load(spec.artefact).digest)
