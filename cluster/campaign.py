"""What people write: a campaign as a YAML file, read into a frozen, validated `Campaign`.

    name: quickstart
    models: [testbed-gptj]
    datasets: [{name: testbed-cloze, limit: 200}]
    editors: [identity, ft, {name: rome, label: rome-plain, config: {covariance: false}, protocols: [single]}]
    protocols: [single, {name: batch, sizes: [1, 10]}, {name: sequential, lengths: [1, 10]}]

Every mistake is an `InputError` that names the file, the line, the wrong value and what would be right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from editors import EDITORS
from editors.core.errors import InputError, unknown
from evaluators.datasets import DatasetSpec

Location = tuple[str | int, ...]
Name = Annotated[str, Field(min_length=1)]


def _named(value: object) -> object:
    """A bare name stands for a mapping with only a name."""
    return {"name": value} if isinstance(value, str) else value


class Spec(BaseModel):
    """Base of all parts of a campaign: immutable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(Spec):
    """A model under study: built-in by `name`, or whatever lies at `path` (a folder or a hub name)."""

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
    """How edits are applied: each alone (`single`), `sizes` at once (`batch`), or one after another, scored at
    `lengths` (`sequential`)."""

    name: Literal["single", "batch", "sequential"]
    sizes: tuple[PositiveInt, ...] = ()
    lengths: tuple[PositiveInt, ...] = ()

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
        return self

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

    `gpus` is one where the cluster has any, unless it is given.
    """

    cpus: PositiveInt = 1
    gpus: Annotated[NonNegativeFloat, Field(allow_inf_nan=False)] | None = None
    count: PositiveInt | None = None


@dataclass(frozen=True)
class Source:
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
    """Every editor on every model, data set and protocol listed; `chunk` cases make one task."""

    name: Name
    seed: int = Field(0, ge=0, lt=2**63)
    models: tuple[Annotated[ModelSpec, BeforeValidator(_named)], ...] = Field(min_length=1)
    datasets: tuple[Annotated[DatasetEntry, BeforeValidator(_named)], ...] = Field(min_length=1)
    editors: tuple[Annotated[EditorSpec, BeforeValidator(_named)], ...] = Field(min_length=1)
    protocols: tuple[Annotated[ProtocolSpec, BeforeValidator(_named)], ...] = Field(
        (ProtocolSpec(name="single"),), min_length=1)
    chunk: PositiveInt = 25
    statistics: StatisticsSpec = StatisticsSpec()
    training: TrainingSpec = TrainingSpec()
    workers: WorkerSpec = WorkerSpec()
    _source: Source = PrivateAttr(default_factory=Source)

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
        """This campaign with paths that exist relative to `folder` resolved; others mean what they say."""
        def resolve(path: str | None) -> str | None:
            return str((folder / path).resolve()) if path and (folder / path).exists() else path

        corpus = resolve(self.statistics.corpus)
        return self.model_copy(update={
            "models": tuple(spec.model_copy(update={"path": resolve(spec.path)}) for spec in self.models),
            "datasets": tuple(spec.model_copy(update={"path": resolve(spec.path), "train": resolve(spec.train)})
                              for spec in self.datasets),
            "editors": tuple(spec.model_copy(update={"artefact": resolve(spec.artefact)}) for spec in self.editors),
            "statistics": self.statistics.model_copy(update={"corpus": corpus})})


def load_campaign(path: Path | str) -> Campaign:
    """Reads a campaign file. Paths in it may be relative to its own folder. Raises `InputError` for every mistake."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read campaign '{path}': {getattr(error, 'strerror', None) or error}") from error
    data, source = _parse(text, str(path))
    try:
        campaign = Campaign.model_validate(data)
    except ValidationError as error:
        raise InputError("\n".join(f"{source.place(detail['loc'])}: {_explain(detail)}"
                                   for detail in error.errors())) from None
    campaign._source = source
    return campaign.beside(path.parent)


def _parse(text: str, file: str) -> tuple[Any, Source]:
    """YAML with the line of every value; the same key twice is an error, where plain YAML would keep the last."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{file} is empty; a campaign needs name, models, datasets and editors")
        source = Source(file, dict(_lines(node, file)))
        return loader.construct_document(node), source
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{file}{place}: not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date that does not exist
        raise InputError(f"{file}: not valid YAML: {error}") from error


def _lines(node: yaml.Node, file: str, at: Location = ()) -> Iterator[tuple[Location, int]]:
    if not at:
        yield at, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise InputError(f"{file}, line {line}: a field's name must be a word, not a list or a mapping")
            if key.value in seen:
                raise InputError(f"{file}, line {line}: '{key.value}' is written twice")
            seen.add(key.value)
            yield (*at, key.value), line
            yield from _lines(value, file, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield (*at, number), value.start_mark.line + 1
            yield from _lines(value, file, (*at, number))


def _explain(detail: ErrorDetails) -> str:
    """One validation error in the words of whoever wrote the file."""
    match detail["type"]:
        case "extra_forbidden":
            return str(unknown("field", str(detail["loc"][-1]), _fields(detail["loc"][:-1])))
        case "missing":
            return "this field is required"
        case "value_error":
            return str(detail["ctx"]["error"])
        case "model_type" | "model_attributes_type":
            return f"expected a mapping, got {detail['input']!r}"
    return f"{detail['msg']}, got {detail['input']!r}"


def _fields(location: Location) -> list[str]:
    """The fields that the part of a campaign at `location` may have."""
    part: type[BaseModel] = Campaign
    for step in location:
        if isinstance(step, str):
            part = _part(part.model_fields[step].annotation) or part
    return list(part.model_fields)


def _part(annotation: Any) -> type[BaseModel] | None:
    """The model class inside an annotation such as `tuple[Annotated[ModelSpec, ...], ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _part(inner))), None)
