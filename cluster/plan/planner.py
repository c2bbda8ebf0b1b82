"""From a campaign to tasks: what has to be computed, and in which order.

    known                              (which cases a model knows, where a data set is kept to these: asked first, and
                                        all others are planned by the answers)

    baseline ──────────┐
                       ├──> score
    statistics ─┬──────┤               (statistics and train only where the editor asks for them; of a long text,
    train ──────┘      │                statistics are many shards, and moments their sum)
    values ────────────┤               (of MEMIT's batches: what each case needs by itself, for all sizes and orders)
        └─> stream ─> stream ─> ...    (sequential editing: a segment hands its patch to the next, and to scoring)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

from cluster.campaign.spec import Campaign, EditorSpec, ModelSpec
from cluster.plan.cells import Cell
from cluster.plan.cutting import CampaignCases
from cluster.plan.known import Examination, Knowledge, KnownTask, examine
from cluster.plan.labels import Labels, labels_of
from cluster.plan.refs import Chunk, EditorRef, ModelRef, digest
from cluster.plan.resolve import check_editors, check_joint, check_names, check_place, is_for, resolve_artefact
from cluster.plan.sources import Sources
from cluster.plan.tasks import BaselineTask, Method, MomentsTask, StatisticsTask, Task, TrainTask
from cluster.store.records import KnownRecord, SweptEntry
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
    known: tuple[KnownRecord, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether its cases hang on answers of models that are not there: its tasks are as if they knew all of them."""
        return any(each.missing and not each.left_out for each in self.known)

    @property
    def examination(self) -> Plan:
        """The tasks that find out which cases models know, as a campaign of their own."""
        asked = {id: task for id, task in self.tasks.items() if isinstance(task, KnownTask)}
        return replace(self, campaign=self.campaign.model_copy(update={"name": self.campaign.name + EXAMINATION}),
                       tasks=asked, notes=(), sweep=())

    def settled(self, knowledge: Knowledge) -> Plan:
        """The plan of the same campaign by what is known of models' answers."""
        given = None if self.campaign.parts else self.datasets
        return plan(self.campaign, given=given, knowledge=knowledge)

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
            datasets=tuple(DatasetRecord(name=data.spec.name, cases=len(data.cases), skipped=data.skipped,
                                         digest=data.digest) for data in self.datasets),
            tasks=tuple(task.record() for task in self.tasks.values()), notes=self.notes, tags=self.campaign.tags,
            sweep=self.sweep, known=self.known, text=self.campaign.text)


READ = Sources()
NOTHING_KNOWN = Knowledge()
EXAMINATION = " (known)"  # behind the campaign's name


def plan(campaign: Campaign, sources: Sources = READ, given: Sequence[Dataset] | None = None,
         knowledge: Knowledge = NOTHING_KNOWN) -> Plan:
    """All tasks of a campaign, or of its parts. Loads the data sets, unless others are `given` in their place, but no
    model. `knowledge` tells which cases models know, where data sets are kept to these.

    Raises `InputError`, with its place in the campaign's file, for what would keep its tasks from running: an unknown
    model, a data set that cannot be read, a configuration that does not fit the model, an editor that cannot do what a
    protocol asks for, training cases that are missing.
    """
    if campaign.parts:
        return _united(campaign, [plan(part, sources, knowledge=knowledge) for part in campaign.members])
    check_names(campaign)
    datasets = _load(campaign, sources) if given is None else given
    check_editors(campaign)
    planner = Planner(campaign, datasets, sources, knowledge)
    notes = [note for data in range(len(datasets)) for note in (*datasets[data].notes, *planner.notes(data))]
    tasks: dict[str, Task] = {}
    for number in range(len(campaign.models)):
        for task in planner.tasks(number):
            tasks.setdefault(task.id, task)
    return Plan(campaign, tasks, planner.models, tuple(datasets), (*notes, *planner.notes_on_known), _swept(campaign),
                tuple(planner.known))


def _swept(campaign: Campaign) -> tuple[SweptEntry, ...]:
    return tuple(SweptEntry(**point._asdict()) for part in campaign.members for point in part.points)


def _load(campaign: Campaign, sources: Sources) -> list[Dataset]:
    datasets = []
    for number, spec in enumerate(campaign.datasets):
        with campaign.at("datasets", number):
            if spec.hub is not None:
                check_place(spec.hub, "hub")
            datasets.append(sources.dataset(spec.read))
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
    known = dict.fromkeys(each for part in parts for each in part.known)
    return Plan(campaign, tasks, models, tuple(datasets), tuple(notes), _swept(campaign), tuple(known))


class Planner:
    """Makes the tasks of a campaign on data sets that are loaded."""

    def __init__(self, campaign: Campaign, datasets: Sequence[Dataset], sources: Sources,
                 knowledge: Knowledge) -> None:
        self.campaign = campaign
        self.sources = sources
        self.models: dict[str, ModelRef] = {}
        self.known: list[KnownRecord] = []
        self.notes_on_known: list[str] = []
        self._knowledge = knowledge
        self._cases = [CampaignCases(data, contradictions=campaign.contradictions == "allow") for data in datasets]
        self._training: dict[tuple[int, int | None], Chunk] = {}
        self._corpora: dict[str, str] = {}

    def notes(self, data: int) -> Iterator[str]:
        """What people should know of a data set under the measures and protocols. Refuses more edits than there are
        cases. Of those that are kept to what a model knows, `notes_on_known` tells once `tasks` are made."""
        return self._notes(self._cases[data]) if self.campaign.datasets[data].known is None else iter(())

    def _notes(self, cases: CampaignCases, model: str = "") -> Iterator[str]:
        name, whose = cases.dataset.spec.name, f" that {model} knows" if model else ""
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
                                     f"'{name}' has {count}{whose}; raise its {'examine' if model else 'limit'} or "
                                     f"{cure}")
            told.append(protocol.note(count))
        return (f"{name}{whose}: {note}" for note in told if note)

    def tasks(self, number: int) -> Iterator[Task]:
        """The tasks of one model."""
        spec = self.campaign.models[number]
        with self.campaign.at("models", number):
            model, config = self.sources.model(spec, self.campaign.workers.threads)
        self.models[spec.name] = model
        asked = self.measures.of_baseline
        cases = {place: self._cases[place] for place, entry in enumerate(self.campaign.datasets)
                 if is_for(spec, entry) and entry.known is None}
        for found in self._examinations(spec, model, cases):
            yield from found.to_do
        baselines = {place: [BaselineTask(f"baseline of {spec.name}: {chunk}", model, chunk, asked)
                             for chunk in taken.chunks(self.campaign.chunk)] for place, taken in cases.items()}
        if any(protocol.scored for protocol in self.campaign.protocols):
            for tasks in baselines.values():
                yield from tasks
        for place, wanted in enumerate(self.campaign.editors):
            if is_for(spec, wanted):
                yield from self._editor_tasks(place, wanted, spec, model, config, cases, baselines)

    def _examinations(self, spec: ModelSpec, model: ModelRef,
                      cases: dict[int, CampaignCases]) -> Iterator[Examination]:
        """What a model is asked of the data sets that are kept to what it knows; adds what is left of them to `cases`.
        """
        for place, entry in enumerate(self.campaign.datasets):
            if not is_for(spec, entry) or entry.known is None:
                continue
            with self.campaign.at("datasets", place):
                found = examine(self._cases[place], entry, spec.name, model, self._knowledge)
            self.known.append(found.record)
            if found.cases is not None:
                cases[place] = found.cases
                self.notes_on_known += self._notes(found.cases, spec.name)
            yield found

    @cached_property
    def measures(self) -> Measures:
        """The campaign's, with what they read from files."""
        def prepare(measure: Measure) -> Measure:
            with self.campaign.at("measures", measure.name):
                return self.sources.measure(measure)

        return self.campaign.measures.each(prepare)

    def _editor_tasks(self, place: int, wanted: EditorSpec, spec: ModelSpec, model: ModelRef,
                      model_config: PretrainedConfig, cases: Mapping[int, CampaignCases],
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
                    lessons = self._training_cases(data, wanted)
                learner = replace(editor, version=method.training_version)
                training = TrainTask(f"training of {editor.name} on {spec.name}: {lessons.dataset}", model, learner,
                                     method.training_settings(config), lessons, seed)
                yield training
            made = Method(editor, seed, statistics, training.key if training else None, artefact,
                          training.cases.digest if training else None)
            dataset = self._cases[data].dataset.spec
            cell = Cell(wanted.title, spec.name, model, made, cases[data], asked_before,
                        self.measures.on(dataset), self.campaign.answers)
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
