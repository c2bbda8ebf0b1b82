"""From a campaign to tasks: what has to be computed, and in which order.

    baseline ──────────┐
                       ├──> score
    statistics ─┬──────┤               (statistics and train only where the editor asks for them; of a long text,
    train ──────┘      │                statistics are many shards, and moments their sum)
        └─> stream ─> stream ─> ...    (sequential editing: a segment hands its patch to the next, and to scoring)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

from cluster.campaign.spec import Campaign, EditorSpec, ModelSpec
from cluster.plan.cells import Cell
from cluster.plan.cutting import CampaignCases
from cluster.plan.labels import Labels, labels_of
from cluster.plan.refs import Chunk, EditorRef, ModelRef, digest
from cluster.plan.resolve import check_joint, check_names, check_place, is_for, resolve_artefact
from cluster.plan.sources import Sources
from cluster.plan.tasks import BaselineTask, Method, MomentsTask, StatisticsTask, Task, TrainTask
from cluster.store.records import SweptEntry
from cluster.store.store import CampaignRecord, DatasetRecord
from editors import get_editor, resolve_config
from editors.core.errors import InputError
from editors.core.models.shards import Shard
from evaluators.datasets import Dataset, training_spec
from evaluators.scoring.measures import Measures
from evaluators.scoring.measures.base import Measure

if TYPE_CHECKING:  # wrong input is told before torch is loaded
    from transformers import PretrainedConfig



@dataclass(frozen=True)
class Plan:
    """All tasks of a campaign by id, what others need before the others; its models by name, and its data sets."""

    campaign: Campaign
    tasks: Mapping[str, Task]
    models: Mapping[str, ModelRef]
    datasets: tuple[Dataset, ...]
    notes: tuple[str, ...] = ()
    sweep: tuple[SweptEntry, ...] = ()

    def labels(self, task: str) -> Labels:
        """What a task is about."""
        return labels_of(found := self.tasks[task], self._model_names[found.model.key])

    @cached_property
    def _model_names(self) -> dict[str, str]:
        """The first name of each model, by its key."""
        return {model.key: name for name, model in reversed(list(self.models.items()))}

    def record(self, started: datetime) -> CampaignRecord:
        """The plan as it is kept in a store."""
        return CampaignRecord(
            name=self.campaign.name, digest=digest([self.campaign.name, *self.tasks]), started=started,
            datasets=tuple(DatasetRecord(name=data.spec.name, cases=len(data.cases), skipped=data.skipped)
                           for data in self.datasets),
            tasks=tuple(task.record() for task in self.tasks.values()), notes=self.notes, tags=self.campaign.tags,
            sweep=self.sweep)


READ = Sources()


def plan(campaign: Campaign, sources: Sources = READ, given: Sequence[Dataset] | None = None) -> Plan:
    """All tasks of a campaign, or of its parts. Loads the data sets, unless others are `given` in their place, but no
    model.

    Raises `InputError`, with its place in the campaign's file, for what would keep its tasks from running: an unknown
    model, a data set that cannot be read, a configuration that does not fit the model, an editor that cannot do what a
    protocol asks for, training cases that are missing.
    """
    if campaign.parts:
        return _united(campaign, [plan(part, sources) for part in campaign.members])
    check_names(campaign)
    datasets = _load(campaign, sources) if given is None else given
    planner = Planner(campaign, datasets, sources)
    notes = tuple(note for data in range(len(datasets)) for note in (*datasets[data].notes, *planner.notes(data)))
    tasks: dict[str, Task] = {}
    for number in range(len(campaign.models)):
        for task in planner.tasks(number):
            tasks.setdefault(task.id, task)
    return Plan(campaign, tasks, planner.models, tuple(datasets), notes, _swept(campaign))


def _swept(campaign: Campaign) -> tuple[SweptEntry, ...]:
    return tuple(SweptEntry(**point._asdict()) for part in campaign.members for point in part.points)


def _load(campaign: Campaign, sources: Sources) -> list[Dataset]:
    datasets = []
    for number, spec in enumerate(campaign.datasets):
        with campaign.at("datasets", number):
            if spec.hub is not None:
                check_place(spec.hub, "hub")
            datasets.append(sources.dataset(spec))
    return datasets


def _united(campaign: Campaign, parts: Sequence[Plan]) -> Plan:
    """The plans of a campaign's parts as one: what several of them need is done once."""
    tasks: dict[str, Task] = {}
    models: dict[str, ModelRef] = {}
    for part in parts:
        for id, task in part.tasks.items():
            tasks.setdefault(id, task)
        for name, model in part.models.items():
            if models.setdefault(name, model).key != model.key:
                raise InputError(f"{campaign.where('parts')}: '{name}' is one model in '{part.campaign.name}' and "
                                 "another in a part before it; give it another name")
    datasets: list[Dataset] = []
    for data in (data for part in parts for data in part.datasets):
        if not any(data.spec.name == other.spec.name and data.digest == other.digest for other in datasets):
            datasets.append(data)
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return Plan(campaign, tasks, models, tuple(datasets), tuple(notes), _swept(campaign))


class Planner:
    """Makes the tasks of a campaign on data sets that are loaded."""

    def __init__(self, campaign: Campaign, datasets: Sequence[Dataset], sources: Sources) -> None:
        self.campaign = campaign
        self.sources = sources
        self.models: dict[str, ModelRef] = {}
        self._cases = [CampaignCases(data, contradictions=campaign.contradictions == "allow") for data in datasets]
        self._training: dict[tuple[int, int | None], Chunk] = {}
        self._corpora: dict[str, str] = {}

    def notes(self, data: int) -> Iterator[str]:
        """What people should know of a data set under the measures and protocols. Refuses more edits than there are
        cases."""
        cases = self._cases[data]
        name = cases.dataset.spec.name
        told = [measure.note(cases.dataset.cases) for measure in self.measures]
        if any(protocol.together for protocol in self.campaign.protocols) and cases.contradicting:
            first = cases.contradicting[0]
            told.append(f"batches and streams leave out {len(cases.contradicting)} cases that contradict one before "
                        f"them, such as {first.case_id}: {first.reason}; 'contradictions: allow' keeps them")
        for number, protocol in enumerate(self.campaign.protocols):
            count = cases.count(0 if protocol.together else None)
            if (most := protocol.cases_needed) > count:
                cure = f"take {most} off the list" if protocol.numbers else "lower the protocol's 'edits'"
                with self.campaign.at("protocols", number, *filter(None, [protocol.numbers])):
                    raise InputError(f"{protocol.name} editing with {most} edits needs as many cases, and data set "
                                     f"'{name}' has {count}; raise its limit or {cure}")
            told.append(protocol.note(count))
        return (f"{name}: {note}" for note in told if note)

    def tasks(self, number: int) -> Iterator[Task]:
        """The tasks of one model."""
        spec = self.campaign.models[number]
        with self.campaign.at("models", number):
            model, config = self.sources.model(spec, self.campaign.workers.threads)
        self.models[spec.name] = model
        asked = self.measures.of_baseline
        baselines = {place: [BaselineTask(f"baseline of {spec.name}: {chunk}", model, chunk, asked)
                             for chunk in self._cases[place].chunks(self.campaign.chunk)]
                     for place, entry in enumerate(self.campaign.datasets) if is_for(spec, entry)}
        if any(protocol.scored for protocol in self.campaign.protocols):
            for tasks in baselines.values():
                yield from tasks
        for place, wanted in enumerate(self.campaign.editors):
            if is_for(spec, wanted):
                yield from self._editor_tasks(place, wanted, spec, model, config, baselines)

    @cached_property
    def measures(self) -> Measures:
        """The campaign's, with what they read from files."""
        def prepare(measure: Measure) -> Measure:
            with self.campaign.at("measures", measure.name):
                return self.sources.measure(measure)

        return self.campaign.measures.each(prepare)

    def _editor_tasks(self, place: int, wanted: EditorSpec, spec: ModelSpec, model: ModelRef,
                      model_config: PretrainedConfig,
                      baselines: Mapping[int, Sequence[BaselineTask]]) -> Iterator[Task]:
        with self.campaign.at("editors", place):
            method = get_editor(wanted.name)
            config = resolve_config(wanted.name, model_config, wanted.config)
            for field in config.models:
                if (named := getattr(config, field)) is not None:
                    check_place(named, field)
            content = self.sources.content(method, config, model_config)
            asked = [protocol for protocol in self.campaign.protocols
                     if wanted.protocols is None or protocol.name in wanted.protocols]
            check_joint(method, wanted, asked)
        with self.campaign.at("editors", place, "artefact"):
            artefact = resolve_artefact(method, wanted, config, model)
        editor = EditorRef(wanted.name, method.version, config.model_dump(mode="json"), content)
        statistics: StatisticsTask | MomentsTask | None = None
        if layers := tuple(sorted(method.statistics_layers(config))):
            shards = self._statistics(place, wanted, spec, model, layers)
            statistics = shards[0] if len(shards) == 1 else MomentsTask(_of_moments(spec, layers), model, shards)
            yield from (*shards, statistics)
        for (data, asked_before), seed in product(baselines.items(), self.campaign.seeds):
            training = None
            if method.trained and artefact is None:
                with self.campaign.at("editors", place):
                    cases = self._training_cases(data, wanted)
                training = TrainTask(f"training of {editor.name} on {spec.name}: {cases.dataset}", model, editor,
                                     method.training_settings(config), cases, seed)
                yield training
            made = Method(editor, seed, statistics, training.key if training else None, artefact,
                          training.cases.digest if training else None)
            dataset = self._cases[data].dataset.spec
            cell = Cell(wanted.title, spec.name, model, made, self._cases[data], asked_before,
                        self.measures.on(dataset))
            for protocol in asked:
                yield from cell.tasks(protocol, self.campaign.orders, self.campaign.chunk)

    def _training_cases(self, data: int, editor: EditorSpec) -> Chunk:
        """What an editor learns from before it is judged on a data set; read once."""
        key = data, self.campaign.training_of(editor).limit
        if key not in self._training:
            entry = self.campaign.datasets[data]
            try:
                cases = self.sources.dataset(training_spec(entry, key[1])).cases
            except InputError as error:
                raise InputError(f"editor '{editor.name}' has to be trained first: {error}") from error
            self._training[key] = Chunk(entry.name, 1, cases)
        return self._training[key]

    def _statistics(self, place: int, wanted: EditorSpec, spec: ModelSpec, model: ModelRef,
                    layers: tuple[int, ...]) -> tuple[StatisticsTask, ...]:
        """The second moments of an editor's text, in shards."""
        text = self.campaign.statistics_of(wanted)
        own = ("editors", place) if wanted.statistics and "corpus" in wanted.statistics.model_fields_set else ()
        with self.campaign.at("editors", place, "statistics"):
            if text.excess:
                raise InputError(text.excess)
        if text.corpus not in self._corpora:
            with self.campaign.at(*own, "statistics", "corpus"):
                self._corpora[text.corpus] = self.sources.corpus(text.corpus)
        count = -(-text.tokens // text.shard)
        titles = [f", shard {number} of {count}" for number in range(1, count + 1)] if count > 1 else [""]
        return tuple(StatisticsTask(_of_moments(spec, layers) + title, model, layers, text.corpus,
                                    self._corpora[text.corpus], text.tokens, Shard(number, count))
                     for number, title in enumerate(titles))


def _of_moments(spec: ModelSpec, layers: Sequence[int]) -> str:
    return f"second moments of {spec.name}: layers {', '.join(map(str, layers))}"
