"""The kinds of tasks, each under an id that is its identity.

A task's id is a digest of all that determines its result: the model's content and dtype, the cases' content, the
method with its whole configuration, versions, seeds, and the ids of what it needs. Same id, same result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from cluster.plan import costs
from cluster.plan.refs import ArtefactRef, Chunk, EditorRef, ModelRef, digest
from cluster.scheduler.events import TaskNode
from cluster.store.store import Output, ResultKey, TaskRecord
from editors.core.memory import HALVINGS
from editors.core.models import shards
from editors.core.models.shards import WHOLE, Shard
from evaluators.protocols.base import Protocol
from evaluators.scoring.measures import NOTHING_MORE, Measures
from evaluators.testbed.learned import SHIPPED


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

    @cached_property
    @abstractmethod
    def cost(self) -> float:
        """Seconds it takes on the reference device, by the table in `costs`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of the tasks whose results it reads."""
        return ()

    @property
    def temporary(self) -> bool:
        """Whether its result need not be kept once all tasks that need it are done."""
        return False

    @property
    def edits(self) -> int:
        return 0

    @property
    def pieces(self) -> int:
        """How many parts it can be done in, where memory does not suffice: parts of its cases, and of all that it does
        at once."""
        return 1 << HALVINGS

    @cached_property
    def id(self) -> str:
        return digest({"kind": self.kind, "model": self.model.key, "needs": self.needs, **self.identity()})

    @property
    def key(self) -> ResultKey:
        return ResultKey(self.output, self.id)

    @property
    def alone(self) -> bool:
        """Whether it is for a process that has done nothing before, on a device that nothing else uses."""
        return False

    def node(self, on_gpu: bool = True) -> TaskNode:
        """The task as the scheduler sees it, on workers with or without GPUs."""
        return TaskNode(self.id, self.model.key, self.needs, self.cost,
                        costs.time_limit(self.model.shape, self.cost, on_gpu), self.pieces, self.temporary,
                        self.kind, self.alone)

    def record(self) -> TaskRecord:
        return TaskRecord(id=self.id, kind=self.kind, output=self.output, title=self.title, edits=self.edits,
                          needs=self.needs, temporary=self.temporary)


BASELINE_VERSION = 2  # grows when the answers that are kept of unedited models change


@dataclass(frozen=True)
class BaselineTask(Task):
    """The unedited model's outputs on all probes of a chunk."""

    kind = "baseline"
    output = "baselines"
    chunk: Chunk
    measures: Measures = NOTHING_MORE

    def identity(self) -> dict[str, Any]:
        return {"version": BASELINE_VERSION, "cases": self.chunk.digest, "measures": self.measures.identity()}

    @cached_property
    def cost(self) -> float:
        return costs.baseline_seconds(self.model.shape, self.measures) * len(self.chunk.cases)

    @property
    def pieces(self) -> int:
        return max(len(self.chunk.cases), super().pieces)


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
        return {"version": shards.VERSION, "layers": self.layers, "corpus": self.corpus_digest,
                "tokens": self.tokens, **part}

    @property
    def temporary(self) -> bool:
        return self.shard != WHOLE

    @cached_property
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

    def identity(self) -> dict[str, Any]:
        first = self.shards[0]
        return {"version": shards.VERSION, "layers": self.layers, "corpus": first.corpus_digest,
                "tokens": first.tokens, "shards": len(self.shards)}

    @cached_property
    def cost(self) -> float:
        return costs.sum_seconds(self.model.shape, self.layers, len(self.shards))

    @property
    def pieces(self) -> int:
        return 1  # it holds one sum, and what is added to it


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
        content = {name: digest for name, digest in self.editor.content.items() if name in self.settings}
        return {"editor": {**self.editor.identity(), "config": {**self.settings, **content}},
                "cases": self.cases.digest, "seed": self.seed}

    @property
    def shipped(self) -> Path | None:
        """The file with the result, where it comes with EditFleet."""
        path = SHIPPED / f"{self.id}.safetensors"
        return path if path.is_file() else None

    @cached_property
    def cost(self) -> float:
        return 1 if self.shipped else costs.training_seconds(self.model.shape, self.editor.name, self.editor.config)


@dataclass(frozen=True)
class Method:
    """An editor and all that it is made with. `training` is the training task's key, and `lessons` the digest of its
    cases; `artefact` is a file instead."""

    editor: EditorRef
    seed: int
    statistics: StatisticsTask | MomentsTask | None = None
    training: ResultKey | None = None
    artefact: ArtefactRef | None = None
    lessons: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(need.id for need in (self.statistics, self.training) if need)

    def identity(self) -> dict[str, Any]:
        given = {"artefact": self.artefact.digest} if self.artefact else {}
        return {"editor": self.editor.identity(), "seed": self.seed, **given}


@dataclass(frozen=True)
class ValuesTask(Task):
    """What the joint edits of a method need of each case of a chunk by itself: sought once, for all batches that the
    cases are in. The method is without second moments, which are not needed for it."""

    kind = "values"
    output = "artefacts"
    method: Method
    chunk: Chunk

    def identity(self) -> dict[str, Any]:
        return {**self.method.identity(), "cases": self.chunk.digest}

    @property
    def needs(self) -> tuple[str, ...]:
        return self.method.needs

    @cached_property
    def cost(self) -> float:
        editor = self.method.editor
        return costs.edit_seconds(self.model.shape, editor.name, editor.config) * len(self.chunk.cases)

    @property
    def pieces(self) -> int:
        return max(len(self.chunk.cases), super().pieces)


@dataclass(frozen=True)
class StreamTask(Task):
    """One segment of a stream: the edits of a chunk, made as the protocol does, on the patch of the segments `before`
    it."""

    kind = "stream"
    output = "artefacts"
    method: Method
    chunk: Chunk
    protocol: Protocol
    before: ResultKey | None

    @property
    def needs(self) -> tuple[str, ...]:
        return (*([self.before.id] if self.before else []), *self.method.needs)

    def identity(self) -> dict[str, Any]:
        return {**self.method.identity(), "cases": self.chunk.digest, "protocol": self.protocol.identity()}

    @cached_property
    def cost(self) -> float:
        editor = self.method.editor
        return costs.edit_seconds(self.model.shape, editor.name, editor.config) * len(self.chunk.cases)

    @property
    def edits(self) -> int:
        return len(self.chunk.cases)


IN_OTHER_COLUMNS = ("cases", "count", "order", "seed", "titles")  # of a score task's identity


@dataclass(frozen=True)
class ScoreTask(Task):
    """The scores of a chunk under one protocol, and its edits where no `stream` has made them.

    `count` is how many edits a model has on it. `baselines` are those of all its cases, and so are `values`, where its
    edits are joint ones of a method that seeks them apart; `editor_title`, `model_title` and `order`, the number of the
    shuffle that the cases are in, go into its rows. Whether it keeps `answers`, what models said, is no part of its
    identity: its rows are the same.
    """

    kind = "score"
    output = "rows"
    method: Method
    chunk: Chunk
    protocol: Protocol
    count: int
    baselines: tuple[BaselineTask, ...]
    stream: ResultKey | None
    editor_title: str
    model_title: str
    order: int = 0
    measures: Measures = NOTHING_MORE
    answers: bool = True
    values: tuple[ValuesTask, ...] = ()

    @property
    def settings(self) -> str:
        """12 hexadecimal digits for its rows, which identify all that their numbers hang on and no other column tells:
        method, configuration, versions, model, measures. Rows with others are of something else."""
        method = self.method
        here = {name: value for name, value in self.identity().items() if name not in IN_OTHER_COLUMNS}
        return digest({"model": self.model.key, "statistics": method.statistics and method.statistics.id,
                       "lessons": method.lessons, **here})[:12]

    @property
    def needs(self) -> tuple[str, ...]:
        made = (self.stream.id,) if self.stream else self.method.needs
        return (*(task.id for task in (*self.baselines, *self.values)), *made)

    def identity(self) -> dict[str, Any]:
        return {**self.method.identity(), "cases": self.chunk.digest, "count": self.count,
                "protocol": self.protocol.identity(), "metrics": self.measures.versions,
                "measures": self.measures.identity(), "order": self.order,
                "titles": [self.editor_title, self.model_title, self.chunk.dataset]}

    @cached_property
    def cost(self) -> float:
        shape, editor, cases = self.model.shape, self.method.editor, len(self.chunk.cases)
        if not self.protocol.scored:
            return self.protocol.times(self.count) * costs.edit_seconds(shape, editor.name, editor.config)
        edits = self.edits * costs.edit_seconds(shape, editor.name, editor.config)
        if self.values:
            edits *= costs.WRITING
        patches = 1 if self.stream else -(-cases // self.count)
        return (edits + cases * costs.score_seconds(shape, editor.name, self.measures)
                + patches * costs.patch_seconds(shape, self.measures))

    @property
    def edits(self) -> int:
        if not self.protocol.scored:
            return self.count
        return 0 if self.stream else len(self.chunk.cases)

    @property
    def alone(self) -> bool:
        return self.protocol.alone

    @property
    def pieces(self) -> int:
        return max(len(self.chunk.cases) // self.protocol.unit(self.count), super().pieces)
