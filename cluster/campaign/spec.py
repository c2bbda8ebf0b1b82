"""What people write: a campaign, as a frozen and validated `Campaign`. In its YAML file (`campaign.file` reads it):

    name: quickstart
    models: [testbed-gptj]
    datasets: [{name: testbed-cloze, limit: 200}]
    editors: [identity, ft, {name: rome, label: rome-plain, config: {covariance: false}, protocols: [single]}]
    protocols: [single, {name: batch, sizes: [1, 10]}, {name: sequential, lengths: [1, 10]}]
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    NonNegativeFloat,
    PositiveInt,
    PrivateAttr,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from cluster.campaign.datasets import DatasetEntry, Names
from cluster.campaign.reading import to_yaml
from cluster.campaign.search import SearchSpec
from cluster.campaign.source import Source
from cluster.scheduler.state import RetryPolicy
from editors import EDITORS
from editors.core.errors import QUOTED, quoted, unknown
from editors.core.places import holds_secrets, scrubbed, shown
from editors.core.printable import CELL, printable
from editors.core.settings import Name, Settings
from evaluators.datasets import TESTBED_CORPUS
from evaluators.protocols import PROTOCOLS, get_protocol, parse_protocol
from evaluators.protocols.base import Protocol
from evaluators.scoring.measures import Measures

MOST_SHARDS = 10_000  # of a text: as many tasks
MOST_TAGS = 50
FILES = ("path", "train", "paraphrases", "snippets")  # of a data set
Numbers = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1)]


def _named(value: object) -> object:
    """A bare name stands for a mapping with only a name."""
    return {"name": value} if isinstance(value, str) else value


class ModelSpec(Settings):
    """A model under study."""

    name: Name
    """What tables call it; without `path` it is also where the model is."""
    path: Name | None = None
    """Where it is: a folder, a hub name, or a built-in model (`testbed-gptj`, `testbed-t5`)."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The weights' precision."""


class TrainingSpec(Settings):
    """Training of the methods that need it."""

    limit: PositiveInt | None = None
    """Only the first so many of a data set's training cases; all, unless it is given."""


class StatisticsSpec(Settings):
    """The text that second moments of FFN keys are taken over (ROME, MEMIT)."""

    corpus: Name = TESTBED_CORPUS
    """`testbed`, the built-in world's text, or a file or URL of texts, one a line or JSON record."""
    tokens: PositiveInt = 100_000
    """How many tokens of it (Meng et al. 2022, E.1: 100,000 samples of Wikipedia)."""
    shard: PositiveInt = 2_000_000
    """Tokens in one task of it, at most: longer texts are taken in shards on many workers, and added. Ours."""

    @model_validator(mode="after")
    def _has_few_shards(self) -> Self:
        if self.excess:
            raise ValueError(self.excess)
        return self

    @property
    def excess(self) -> str:
        """What is wrong where it has too many shards."""
        if self.tokens <= MOST_SHARDS * self.shard:
            return ""
        return (f"{self.tokens} tokens in shards of {self.shard} are more than {MOST_SHARDS:,} tasks; raise 'shard', "
                "or lower 'tokens'")


class OwnStatistics(StatisticsSpec):
    """What differs for one editor from the campaign's `statistics`."""

    @model_validator(mode="after")
    def _has_few_shards(self) -> Self:
        return self  # that hangs on the campaign's, too


class EditorSpec(Settings):
    """An editing method, with what should differ from its preset for the model."""

    name: Name
    """Which method."""
    label: str = ""
    """What tables call it; its name, unless it is given."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Settings of the method that differ from its preset for the model."""
    models: Names | None = None
    """Keeps it to some of the campaign's models."""
    protocols: Names | None = None
    """Keeps it to some of the campaign's protocols."""
    artefact: Name | None = None
    """A file with what a trained method learned before; without it, the campaign trains the method."""
    statistics: OwnStatistics | None = None
    """What differs for it from the campaign's `statistics`."""
    training: TrainingSpec | None = None
    """What differs for it from the campaign's `training`."""

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        if name not in EDITORS:
            raise ValueError(str(unknown("editor", name, EDITORS)))
        return name

    @property
    def title(self) -> str:
        return self.label or self.name


class WorkerSpec(Settings):
    """What one worker takes up. A model that no device can hold is dealt out over `devices` processes that are one
    worker (a gang)."""

    cpus: PositiveInt = 1
    """CPU cores of a worker or of each rank of a gang."""
    threads: PositiveInt = 1
    """Threads that each computes with on the CPU, at most its `cpus`. Part of what a task is: sums that more threads
    share are rounded otherwise. Ours."""
    memory: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """What one device has, in GiB: `editfleet plan` tells by it where a model fits; 32, a V100's, if not given."""
    gpus: Annotated[NonNegativeFloat, Field(allow_inf_nan=False)] | None = None
    """GPUs of a worker or of each rank; one where the cluster has any, unless it is given."""
    count: PositiveInt | None = None
    """How many workers; as many as the cluster has room for, unless it is given."""
    devices: PositiveInt = 1
    """Over how many processes, each with its own device, the model's weights are dealt out (DeepSpeed ZeRO-3)."""
    offload: Literal["none", "cpu", "nvme"] = "none"
    """Where weights wait that are not in use: on the device, in main memory, or in files."""
    nvme: str | None = None
    """The folder for the weights with `offload: nvme`, on every node."""
    timeout: PositiveInt = 600
    """Seconds that a rank waits for another before the gang is ended."""
    placement_timeout: PositiveInt = 300
    """Seconds in which room for a gang must be found."""

    @property
    def is_gang(self) -> bool:
        return self.devices > 1 or self.offload != "none"

    @model_validator(mode="after")
    def _has_a_core_for_each_thread(self) -> Self:
        if self.threads > self.cpus:
            raise ValueError(f"'threads: {self.threads}' needs as many cores; add 'cpus: {self.threads}'")
        return self

    @model_validator(mode="after")
    def _has_a_folder(self) -> Self:
        if (self.offload == "nvme") != (self.nvme is not None):
            raise ValueError("'offload: nvme' and 'nvme', the folder for the weights, go together")
        return self


class _AnyProtocol:
    """Has the JSON Schema of a protocol list those that are registered."""

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema,
                                     handler: GetJsonSchemaHandler) -> dict[str, Any]:
        bare, choices = [], []
        for name in PROTOCOLS:
            protocol = get_protocol(name)
            found = handler.resolve_ref_schema(handler(protocol.__pydantic_core_schema__))
            numbers = [field for field in [protocol.numbers] if field and not found["properties"][field].get("default")]
            choices.append({**found, "properties": {"name": {"const": name}, **found.get("properties", {})},
                            "required": ["name", *numbers]})
            bare += [] if numbers else [name]
        return {"anyOf": [{"enum": bare}, *choices]}


AnyProtocol = Annotated[Protocol, BeforeValidator(parse_protocol), _AnyProtocol()]


S = TypeVar("S", bound=Settings)


def _with(settings: S, own: S | None) -> S:
    """Settings, with those in their place that others are given."""
    return settings.model_copy(update={name: getattr(own, name) for name in own.model_fields_set} if own else {})


class Point(NamedTuple):
    """An entry that a `sweep` made: the part it stands in, its name, the entry it varies, and its settings that are
    swept."""

    part: str
    name: str
    varies: str
    settings: dict[str, Any]


class Campaign(Settings):
    """Every editor on every model, data set and protocol listed, with each of the seeds."""

    name: Name
    """What the campaign is called, also in the store."""
    seeds: Numbers = (0,)
    """Seeds of the methods; each makes a run of its own."""
    orders: Numbers = (0,)
    """Orders of the cases in batches and streams: 0 is the data set's, any other number shuffles them."""
    contradictions: Literal["exclude", "allow"] = "exclude"
    """Whether batches and streams have all edits that contradict each other, or only the first of them (as Meng et al.
    2023)."""
    measures: Measures = Measures()
    """What is measured beyond the teacher-forced scores: `true`, or its settings, for each."""
    answers: bool = True
    """Whether what the unedited and the edited model say to every question is kept beside the scores, for people to
    look at (`editfleet cases`). No part of what a task is: tasks that are done are not done again for it. Ours."""
    data: Name | None = None
    """The folder or URL that the paths of data sets and of corpora start from; the campaign's own folder, unless it is
    given."""
    published: dict[Name, str] = Field(default_factory=dict)
    """Where files are published that the campaign names, by their names; told where they are not there."""
    parts: Names | None = None
    """Campaign files that this one is made of, from its own folder: each says what is done, and this one its name,
    workers and retries. A scale is also that of the parts that have one of its name."""
    models: tuple[Annotated[ModelSpec, BeforeValidator(_named)], ...] = Field(min_length=1)
    """The models under study, each a name or a mapping."""
    datasets: tuple[Annotated[DatasetEntry, BeforeValidator(_named)], ...] = Field(min_length=1)
    """The data sets, each a name or a mapping."""
    editors: tuple[Annotated[EditorSpec, BeforeValidator(_named)], ...] = Field(min_length=1)
    """The editing methods, each a name or a mapping."""
    protocols: tuple[AnyProtocol, ...] = Field(default_factory=lambda: (parse_protocol("single"),), min_length=1)
    """How edits are put on the models, each a name or a mapping."""
    chunk: PositiveInt = 25
    """Cases in one task, about: whole batches stay together. Part of what a task is: another number makes other tasks.
    Ours."""
    statistics: StatisticsSpec = StatisticsSpec()
    """The text that second moments are taken over."""
    training: TrainingSpec = TrainingSpec()
    """Training of the methods that need it."""
    workers: WorkerSpec = WorkerSpec()
    """What one worker takes up."""
    retries: RetryPolicy = RetryPolicy()
    """How much trouble is borne before a task, or the campaign, is given up."""
    tags: dict[Name, str] = Field(default_factory=dict, max_length=MOST_TAGS)
    """What you like to know of it later, such as `{study: rates}`: kept with the results, and shown by `status`."""
    search: SearchSpec | None = None
    """What `editfleet search` looks for; `run` takes no notice of it."""
    _source: Source = PrivateAttr(default_factory=Source)
    _points: tuple[Point, ...] = PrivateAttr(default=())
    _written: dict[str, Any] = PrivateAttr(default_factory=dict)
    _members: tuple[Campaign, ...] = PrivateAttr(default=())

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        """What is called so is shown and kept everywhere."""
        if holds_secrets(name):
            raise ValueError(f"'{shown(name)}' is an address with a name, password or query in it; names are shown and "
                             "kept everywhere, so take another one (for data sets and models, with that as 'path')")
        return name

    @field_validator("seeds", "orders")
    @classmethod
    def _each_once(cls, numbers: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"a number is listed twice: {', '.join(map(str, numbers))}")
        return numbers

    @field_validator("models", "datasets", "editors", "protocols")
    @classmethod
    def _told_apart(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        """Tables tell entries apart by name alone."""
        names = [getattr(entry, "title", None) or entry.name for entry in entries]
        for name in names:
            cls._is_a_name(name)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{quoted(twice[0])} is listed twice; give each its own name (editors: its own label)")
        return entries

    @field_validator("tags")
    @classmethod
    def _can_be_shown(cls, tags: dict[str, str]) -> dict[str, str]:
        for name, value in tags.items():
            for text, longest in ((name, CELL), (value, QUOTED)):
                if scrubbed(text) != text or printable(text, longest) != text:
                    raise ValueError(f"tag {quoted(name)}: {quoted(text)} cannot be one: tags are shown and kept "
                                     f"everywhere, so they are one line, of at most {longest} characters, without "
                                     "passwords or queries of URLs")
        return tags

    @property
    def points(self) -> tuple[Point, ...]:
        """The entries that its `sweep` made."""
        return self._points

    @property
    def text(self) -> str:
        """What it was read from, as YAML: with what it includes, a scale and options in their places; behind a campaign
        of parts, these. Empty where it was not read."""
        return "---\n".join(to_yaml(each._written) for each in (self, *self._members) if each._written)

    @property
    def members(self) -> tuple[Campaign, ...]:
        """The campaigns that it is made of: its parts, or itself."""
        return self._members or (self,)

    def statistics_of(self, editor: EditorSpec) -> StatisticsSpec:
        """The campaign's, with what differs for an editor."""
        return _with(self.statistics, editor.statistics)

    def training_of(self, editor: EditorSpec) -> TrainingSpec:
        """The campaign's, with what differs for an editor."""
        return _with(self.training, editor.training)

    def where(self, *location: str | int) -> str:
        """Where a value stands in what the campaign was read from, for messages."""
        return self._source.where(location)

    def folder(self, *location: str | int) -> Path:
        """Where relative paths in a value start."""
        return self._source.folder(location)

    def at(self, *location: str | int) -> AbstractContextManager[None]:
        """Input errors raised inside are reported with their place in what the campaign was read from."""
        return self._source.at(location)
