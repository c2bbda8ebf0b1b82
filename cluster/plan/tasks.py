"""The kinds of tasks, each under an id that is its identity.

A task's id is a digest of all that determines its result: the model's content and dtype, the cases' content, the
method with its whole configuration, versions, seeds, and the ids of what it needs. Same id, same result.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from cluster.plan import costs
from cluster.scheduler.events import TaskNode
from cluster.store.store import Output, ResultKey, TaskRecord
from editors.core.models import statistics
from editors.core.models.architectures import UNKNOWN, Shape
from editors.core.models.statistics import WHOLE, Shard
from evaluators import testbed
from evaluators.cases import Case
from evaluators.protocols import base as protocols
from evaluators.scoring import metrics
from evaluators.scoring.measures import NOTHING_MORE, Measures

SHIPPED = Path(testbed.__file__).parent / "artefacts"  # what training tasks yield, by task id


def digest(value: object) -> str:
    """24 hexadecimal digits that identify a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class ModelRef:
    """Where a model is, which it is, and how large. `key` alone counts: two paths to the same weights are one model."""

    path: str
    digest: str
    dtype: str
    shape: Shape = UNKNOWN

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
    """Consecutive cases of a data set, the first of which is case number `first`, counted from 1. `source` says how the
    data set was read, and is no part of the identity."""

    dataset: str
    first: int
    cases: tuple[Case, ...]
    source: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Of the cases' content; fields that are not used do not count, so that new ones change no id."""
        return digest([case.model_dump(mode="json", exclude_defaults=True) for case in self.cases])

    @property
    def last(self) -> int:
        return self.first + len(self.cases) - 1

    def __str__(self) -> str:
        return f"{self.dataset}, cases {self.first}-{self.last}"


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
    def cost(self) -> float:
        """Seconds it takes on the reference device, by the table in `costs`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the tasks whose results it reads."""
        return ()

    @property
    def absorbs(self) -> tuple[str, ...]:
        """Ids of those of its `needs` whose results are all in its own, and that no other task needs: they are removed
        once it is done."""
        return ()

    @property
    def edits(self) -> int:
        return 0

    @property
    def pieces(self) -> int:
        """How many parts it can be done in, where memory does not suffice."""
        return 1

    @cached_property
    def id(self) -> str:
        return digest({"kind": self.kind, "model": self.model.key, "needs": self.needs, **self.identity()})

    @property
    def key(self) -> ResultKey:
        return ResultKey(self.output, self.id)

    def node(self, on_gpu: bool = True) -> TaskNode:
        """The task as the scheduler sees it, on workers with or without GPUs."""
        return TaskNode(self.id, self.model.key, self.needs, self.cost,
                    costs.time_limit(self.model.shape, self.cost, on_gpu), self.pieces, self.absorbs)

    def record(self) -> TaskRecord:
        return TaskRecord(id=self.id, kind=self.kind, output=self.output, title=self.title, edits=self.edits,
                          absorbs=self.absorbs)


def _measured(measures: Measures) -> dict[str, Any]:
    """What is measured in addition, as part of an identity."""
    more = measures.identity()
    return {"measures": more} if more else {}


@dataclass(frozen=True)
class BaselineTask(Task):
    """The unedited model's outputs on all probes of a chunk."""

    kind = "baseline"
    output = "baselines"
    chunk: Chunk
    measures: Measures = NOTHING_MORE

    def identity(self) -> dict[str, Any]:
        return {"version": protocols.VERSIONS["baseline"], "cases": self.chunk.digest, **_measured(self.measures)}

    @property
    def cost(self) -> float:
        return costs.baseline_seconds(self.model.shape, self.measures) * len(self.chunk.cases)

    @property
    def pieces(self) -> int:
        return len(self.chunk.cases)


@dataclass(frozen=True)
class StatisticsTask(Task):
    """Second moments of the FFN keys of some layers over a text, or a shard of it."""

    kind = "statistics"
    output = "artefacts"
    layers: tuple[int, ...]
    corpus: str
    corpus_digest: str
    tokens: int
    shard: Shard = WHOLE

    def identity(self) -> dict[str, Any]:
        part = {} if self.shard == WHOLE else {"shard": [self.shard.number, self.shard.count]}
        return {"version": statistics.VERSION, "layers": self.layers, "corpus": self.corpus_digest,
                "tokens": self.tokens, **part}

    @property
    def cost(self) -> float:
        return costs.statistics_seconds(self.model.shape, self.layers, self.shard.tokens(self.tokens))


@dataclass(frozen=True)
class MomentsTask(Task):
    """The second moments of a whole text: the sum of those of its `shards`, in their order. A shard's id holds the
    text, the whole's tokens and the number of shards, so that it belongs to one sum in all campaigns."""

    kind = "moments"
    output = "artefacts"
    shards: tuple[StatisticsTask, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        return self.shards[0].layers

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(shard.id for shard in self.shards)

    @property
    def absorbs(self) -> tuple[str, ...]:
        return self.needs

    def identity(self) -> dict[str, Any]:
        first = self.shards[0]
        return {"version": statistics.VERSION, "layers": self.layers, "corpus": first.corpus_digest,
                "tokens": first.tokens, "shards": len(self.shards)}

    @property
    def cost(self) -> float:
        return costs.sum_seconds(self.model.shape, self.layers, len(self.shards))


@dataclass(frozen=True)
class TrainTask(Task):
    """What a method learns from the training cases of a data set. Of its configuration only `settings` count."""

    kind = "train"
    output = "artefacts"
    editor: EditorRef
    settings: Mapping[str, Any]
    cases: Chunk
    seed: int

    def identity(self) -> dict[str, Any]:
        return {"editor": {**self.editor.identity(), "config": self.settings}, "cases": self.cases.digest,
                "seed": self.seed}

    @property
    def shipped(self) -> Path | None:
        """The file with the result, where it comes with EditFleet."""
        path = SHIPPED / f"{self.id}.safetensors"
        return path if path.is_file() else None

    @property
    def cost(self) -> float:
        return 1 if self.shipped else costs.training_seconds(self.model.shape, self.editor.name, self.editor.config)


@dataclass(frozen=True)
class ArtefactRef:
    """A file with what a trained method learned, and the digest of its content."""

    path: str
    digest: str


@dataclass(frozen=True)
class Method:
    """An editor and all that it is made with. `training` is the training task's key, `artefact` a file instead."""

    editor: EditorRef
    seed: int
    statistics: StatisticsTask | MomentsTask | None = None
    training: ResultKey | None = None
    artefact: ArtefactRef | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(need.id for need in (self.statistics, self.training) if need)

    def identity(self) -> dict[str, Any]:
        given = {"artefact": self.artefact.digest} if self.artefact else {}
        return {"editor": self.editor.identity(), "seed": self.seed, **given}


@dataclass(frozen=True)
class StreamTask(Task):
    """One segment of a stream: the edits of a chunk, `step` at a time, on the patch of the segments `before` it."""

    kind = "stream"
    output = "artefacts"
    method: Method
    chunk: Chunk
    before: ResultKey | None
    step: int = 1

    @property
    def needs(self) -> tuple[str, ...]:
        return (*([self.before.id] if self.before else []), *self.method.needs)

    def identity(self) -> dict[str, Any]:
        return {**self.method.identity(), "cases": self.chunk.digest, "step": self.step,
                "protocol": {"sequential": protocols.VERSIONS["sequential"]}}

    @property
    def cost(self) -> float:
        editor = self.method.editor
        return costs.edit_seconds(self.model.shape, editor.name, editor.config) * len(self.chunk.cases)

    @property
    def edits(self) -> int:
        return len(self.chunk.cases)


@dataclass(frozen=True)
class ScoreTask(Task):
    """The scores of a chunk under one protocol, and its edits where no `stream` has made them.

    `count` is how many edits a model has on it. `baselines` are those of all its cases; `editor_title`, `model_title`
    and `order`, the number of the shuffle that the cases are in, go into its rows.
    """

    kind = "score"
    output = "rows"
    method: Method
    chunk: Chunk
    protocol: str
    count: int
    baselines: tuple[BaselineTask, ...]
    stream: ResultKey | None
    editor_title: str
    model_title: str
    order: int = 0
    measures: Measures = NOTHING_MORE

    @property
    def needs(self) -> tuple[str, ...]:
        made = (self.stream.id,) if self.stream else self.method.needs
        return (*(baseline.id for baseline in self.baselines), *made)

    def identity(self) -> dict[str, Any]:
        counted = {} if self.protocol == "single" else {"count": self.count}
        return {**self.method.identity(), "cases": self.chunk.digest, **counted,
                "protocol": {self.protocol: protocols.VERSIONS[self.protocol]}, "metrics": metrics.VERSION,
                "titles": [self.editor_title, self.model_title, self.chunk.dataset], "order": self.order,
                **_measured(self.measures)}

    @property
    def cost(self) -> float:
        shape, editor, cases = self.model.shape, self.method.editor, len(self.chunk.cases)
        edits = self.edits * costs.edit_seconds(shape, editor.name, editor.config)
        patches = 1 if self.stream else -(-cases // self.count)
        return (edits + cases * costs.score_seconds(shape, editor.name, self.measures)
                + patches * costs.patch_seconds(shape, self.measures))

    @property
    def edits(self) -> int:
        return 0 if self.stream else len(self.chunk.cases)

    @property
    def pieces(self) -> int:
        return max(1, len(self.chunk.cases) // (self.count if self.protocol == "batch" else 1))
