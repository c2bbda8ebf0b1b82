"""What people write: a campaign, as a frozen and validated `Campaign`. In its YAML file (`campaign_file` reads it):

    name: quickstart
    models: [testbed-gptj]
    datasets: [{name: testbed-cloze, limit: 200}]
    editors: [identity, ft, {name: rome, label: rome-plain, config: {covariance: false}, protocols: [single]}]
    protocols: [single, {name: batch, sizes: [1, 10]}, {name: sequential, lengths: [1, 10]}]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    PrivateAttr,
    field_validator,
    model_validator,
)

from cluster.scheduler.state import RetryPolicy
from editors import EDITORS
from editors.core.errors import InputError, unknown
from evaluators.datasets import TESTBED_CORPUS, DatasetSpec
from evaluators.scoring.measures import Measures

Location = tuple[str | int, ...]
FILES = ("path", "train", "paraphrases", "snippets")  # of a data set
Name = Annotated[str, Field(min_length=1)]


def _named(value: object) -> object:
    """A bare name stands for a mapping with only a name."""
    return {"name": value} if isinstance(value, str) else value


Numbers = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1)]


class Spec(BaseModel):
    """Base of all parts of a campaign: immutable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(Spec):
    """A model under study: by its `name`, or whatever is at `path`: a folder, a hub name, or a built-in model."""

    name: Name
    path: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class EditorSpec(Spec):
    """An editing method, with what should differ from its preset for the model. `label` names it in tables.

    `models` and `protocols` keep it to some of the campaign's. `artefact` is a file with what a trained method learned
    already; without it, the campaign trains it.
    """

    name: Name
    label: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    models: tuple[Name, ...] | None = None
    protocols: tuple[Name, ...] | None = None
    artefact: str | None = None

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        if name not in EDITORS:
            raise ValueError(str(unknown("editor", name, EDITORS)))
        return name

    @property
    def title(self) -> str:
        return self.label or self.name


class DatasetEntry(DatasetSpec):
    """A data set; `models` keeps it to some of the campaign's."""

    models: tuple[Name, ...] | None = None


class ProtocolSpec(Spec):
    """How edits are applied: each alone (`single`), `sizes` at once (`batch`), or one after another, `step` at a time,
    scored at `lengths` (`sequential`)."""

    name: Literal["single", "batch", "sequential"]
    sizes: tuple[PositiveInt, ...] = ()
    lengths: tuple[PositiveInt, ...] = ()
    step: PositiveInt = 1

    @model_validator(mode="after")
    def _has_its_numbers(self) -> Self:
        for name, owner in (("sizes", "batch"), ("lengths", "sequential")):
            numbers = getattr(self, name)
            if self.name == owner and not numbers:
                raise ValueError(f"protocol '{owner}' needs {name}, such as {{name: {owner}, {name}: [1, 10, 100]}}")
            if self.name != owner and numbers:
                raise ValueError(f"'{name}' is for the protocol '{owner}', not for '{self.name}'")
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"{name} lists a number twice: {', '.join(map(str, numbers))}")
        if self.name != "sequential" and self.step != 1:
            raise ValueError(f"'step' is for the protocol 'sequential', not for '{self.name}'")
        return self

    @property
    def joint(self) -> bool:
        """Whether it makes several edits as one."""
        return self.name == "batch" or self.step > 1

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of edits on one model, from the smallest."""
        return tuple(sorted(self.sizes or self.lengths)) or (1,)


class TrainingSpec(Spec):
    """Training of the methods that need it: on the first `limit` of a data set's training cases, or all."""

    limit: PositiveInt | None = None


class StatisticsSpec(Spec):
    """The text second moments are taken over: "testbed" or a file with one text a line, and how many tokens of it."""

    corpus: Name = "testbed"
    tokens: PositiveInt = 100_000


class WorkerSpec(Spec):
    """What one worker takes up; `count` workers, or as many as the cluster has room for.

    `gpus` is one where the cluster has any, unless it is given. A model that no device can hold is dealt out over
    `devices` processes, each with so many `cpus` and `gpus`, that are one worker (a gang); its weights may be kept in
    main memory (`offload: cpu`) or in files under the folder `nvme`. A gang ends when a rank waits for another for
    longer than `timeout` seconds, and is given up when no room is found for it in `placement_timeout`. `memory` is what
    one device has, in GiB: `editfleet plan` tells by it where a model fits.
    """

    cpus: PositiveInt = 1
    memory: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    gpus: Annotated[NonNegativeFloat, Field(allow_inf_nan=False)] | None = None
    count: PositiveInt | None = None
    devices: PositiveInt = 1
    offload: Literal["none", "cpu", "nvme"] = "none"
    nvme: str | None = None
    timeout: PositiveInt = 600
    placement_timeout: PositiveInt = 300

    def beside(self, folder: Path) -> Self:
        """With `nvme` resolved, where it is relative to `folder`; workers start elsewhere."""
        return self.model_copy(update={"nvme": self.nvme and str((folder / self.nvme).resolve())})

    @property
    def is_gang(self) -> bool:
        return self.devices > 1 or self.offload != "none"

    @model_validator(mode="after")
    def _has_a_folder(self) -> Self:
        if (self.offload == "nvme") != (self.nvme is not None):
            raise ValueError("'offload: nvme' and 'nvme', the folder for the weights, go together")
        return self


@dataclass(frozen=True)
class SourceFile:
    """The file a campaign was read from, and the line each of its values stands on."""

    file: str = "campaign"
    lines: Mapping[Location, int] = field(default_factory=dict)

    def place(self, location: Location) -> str:
        """Where a value stands, for messages: `study.yaml, line 7, editors[1].config`."""
        known = next((location[:end] for end in range(len(location), -1, -1) if location[:end] in self.lines), None)
        line = "" if known is None else f", line {self.lines[known]}"
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).lstrip(".")
        return f"{self.file}{line}{', ' + path if path else ''}"


class Campaign(Spec):
    """Every editor on every model, data set and protocol listed, with each of the `seeds`; `chunk` cases make one task,
    or as many as take about a minute by the table of costs.

    Batches and streams are made in each of the `orders`: 0 is the data set's, any other number shuffles the cases. Of
    edits that contradict each other they have only the first, unless `contradictions` are allowed. `data` is the
    folder or URL that the paths of data sets and of corpora start from.
    """

    name: Name
    seeds: Numbers = (0,)
    orders: Numbers = (0,)
    contradictions: Literal["exclude", "allow"] = "exclude"
    measures: Measures = Measures()
    data: Name | None = None
    models: tuple[Annotated[ModelSpec, BeforeValidator(_named)], ...] = Field(min_length=1)
    datasets: tuple[Annotated[DatasetEntry, BeforeValidator(_named)], ...] = Field(min_length=1)
    editors: tuple[Annotated[EditorSpec, BeforeValidator(_named)], ...] = Field(min_length=1)
    protocols: tuple[Annotated[ProtocolSpec, BeforeValidator(_named)], ...] = Field(
        (ProtocolSpec(name="single"),), min_length=1)
    chunk: PositiveInt | None = None
    statistics: StatisticsSpec = StatisticsSpec()
    training: TrainingSpec = TrainingSpec()
    workers: WorkerSpec = WorkerSpec()
    retries: RetryPolicy = RetryPolicy()
    """How much trouble is borne before a task, or the campaign, is given up."""
    _source: SourceFile = PrivateAttr(default_factory=SourceFile)

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
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"'{twice[0]}' is listed twice; give each its own name (editors: its own label)")
        return entries

    @contextmanager
    def at(self, *location: str | int) -> Iterator[None]:
        """Input errors raised inside are reported with their place in the campaign's file."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self._source.place(location)}: {error}") from error

    def beside(self, folder: Path) -> Self:
        """This campaign with paths that exist relative to `folder` resolved; others mean what they say. Those of data
        sets start at `data`, where that is given."""
        def resolve(path: str | None) -> str | None:
            return str((folder / path).resolve()) if path and (folder / path).exists() else path

        data = resolve(self.data)

        def locate(path: str | None) -> str | None:
            if path is None or data is None or "://" in path or Path(path).is_absolute():
                return resolve(path)
            return f"{data.rstrip('/')}/{path}"

        def read_text(corpus: str) -> str:
            return corpus if corpus == TESTBED_CORPUS else locate(corpus) or corpus

        def read_there(spec: DatasetEntry) -> DatasetEntry:
            files = [name for name in FILES if not (spec.hub and name == "train")]  # there a split
            return spec.model_copy(update={name: locate(getattr(spec, name)) for name in files})

        return self.model_copy(update={
            "models": tuple(spec.model_copy(update={"path": resolve(spec.path)}) for spec in self.models),
            "datasets": tuple(map(read_there, self.datasets)),
            "editors": tuple(spec.model_copy(update={"artefact": resolve(spec.artefact)}) for spec in self.editors),
            "statistics": self.statistics.model_copy(update={"corpus": read_text(self.statistics.corpus)}),
            "measures": self._measures_of(read_text),
            "workers": self.workers.beside(folder)})

    def _measures_of(self, read_text: Callable[[str], str]) -> Measures:
        """The measures, with the place of the corpus of perplexity."""
        perplexity = self.measures.perplexity
        if perplexity is None:
            return self.measures
        moved = perplexity.model_copy(update={"corpus": read_text(perplexity.corpus)})
        return self.measures.model_copy(update={"perplexity": moved})
