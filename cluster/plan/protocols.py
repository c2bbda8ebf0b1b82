"""The tasks of one editor on one model and one data set: what each protocol edits and scores, in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from cluster.campaign.spec import EditorSpec, ModelSpec, ProtocolSpec
from cluster.plan.tasks import BaselineTask, Chunk, Method, ModelRef, ScoreTask, StreamTask, Task
from cluster.store.store import ResultKey
from evaluators.cases import Case

if TYPE_CHECKING:
    from cluster.plan.planner import Planner


@dataclass(frozen=True)
class Maker:
    """Makes the tasks of one editor on one model and one data set."""

    planner: Planner
    data: int
    wanted: EditorSpec
    spec: ModelSpec
    model: ModelRef
    method: Method
    baselines: Sequence[BaselineTask]

    def tasks(self, protocol: ProtocolSpec) -> Iterator[Task]:
        if protocol.name == "single":
            chunks = self.planner.whole(self.data, self._size(protocol, 1))
            yield from (self._score(protocol, 1, chunk) for chunk in chunks)
            return
        for order in self.planner.campaign.orders:
            cases = self.planner.ordered(self.data, order)
            if protocol.name == "batch":
                for count in protocol.counts:
                    yield from self._batches(protocol, count, cases, order)
            else:
                yield from self._stream(protocol, cases, order)

    def _batches(self, protocol: ProtocolSpec, size: int, cases: Sequence[Case], order: int) -> Iterator[Task]:
        """As many whole batches in a task as a chunk holds, but at least one."""
        planner = self.planner
        whole = cases[: len(cases) // size * size]
        for chunk in planner.cut(self.data, whole, max(1, self._size(protocol, size) // size) * size):
            yield self._score(protocol, size, chunk, order)

    def _stream(self, protocol: ProtocolSpec, cases: Sequence[Case], order: int) -> Iterator[Task]:
        """Segments between lengths, and at each length the scores of all edits so far."""
        data, before = self.planner.datasets[self.data], None
        for start, end in pairwise([0, *protocol.counts]):
            chunk = Chunk(data.spec.name, start + 1, tuple(cases[start:end]), data.provenance)
            segment = StreamTask(f"{self._title} one after another{_shuffled(order)}: {chunk}", self.model, self.method,
                                 chunk, before, protocol.step)
            before = segment.key
            yield segment
            for piece in self.planner.cut(self.data, cases[:end], self._size(protocol, end)):
                yield self._score(protocol, end, piece, order, before)

    def _size(self, protocol: ProtocolSpec, count: int) -> int:
        """Cases per task."""
        return self.planner.sizes.of_scores(self.model, self.method.editor, protocol.name, count, self.planner.measures)

    @property
    def _title(self) -> str:
        return f"{self.wanted.title} on {self.spec.name}"

    def _score(self, protocol: ProtocolSpec, count: int, chunk: Chunk, order: int = 0,
               stream: ResultKey | None = None) -> ScoreTask:
        own = (self._baseline_of[case.id] for case in chunk.cases)
        baselines = tuple({baseline.id: baseline for baseline in own}.values())
        how = {"single": "", "batch": f" {count} at once", "sequential": f" after {count} edits"}[protocol.name]
        return ScoreTask(f"{self._title}{how}{_shuffled(order)}: {chunk}", self.model, self.method, chunk,
                         protocol.name, count, baselines, stream, self.wanted.title, self.spec.name, order,
                         self.planner.measured(self.data))

    @cached_property
    def _baseline_of(self) -> dict[str, BaselineTask]:
        return {case.id: baseline for baseline in self.baselines for case in baseline.chunk.cases}


def _shuffled(order: int) -> str:
    return f" in order {order}" if order else ""
