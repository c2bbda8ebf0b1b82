"""The tasks of one cell of a campaign: an editor on a model and a data set, with a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cluster.plan.cutting import CampaignCases
from cluster.plan.refs import Chunk, ModelRef
from cluster.plan.tasks import BaselineTask, Method, ScoreTask, StreamTask, Task
from cluster.store.store import ResultKey
from evaluators.protocols.base import Protocol, Segment
from evaluators.scoring.measures import Measures


@dataclass(frozen=True)
class Cell:
    """All that the tasks of one cell are made of; titles are for tables and people. `baselines` are those of all cases,
    `chunk` to each; `answers` says whether what models say is kept."""

    editor_title: str
    model_title: str
    model: ModelRef
    method: Method
    cases: CampaignCases
    baselines: Sequence[BaselineTask]
    measures: Measures
    answers: bool

    def tasks(self, protocol: Protocol, orders: Sequence[int], chunk: int) -> Iterator[Task]:
        """What a protocol makes of the cases: about `chunk` of them in a task, in each order where order matters."""
        for order in orders if protocol.together else (None,):
            before: ResultKey | None = None
            for piece in protocol.pieces(self.cases.count(order), chunk):
                cases = self.cases.chunk(order, piece.start, piece.stop)
                if isinstance(piece, Segment):
                    segment = StreamTask(self._title(" one after another", order, cases), self.model, self.method,
                                         cases, protocol, before)
                    before = segment.key
                    yield segment
                else:
                    places = self.cases.ordered(order).places[piece.start: piece.stop]
                    numbers = dict.fromkeys(place // chunk for place in places)
                    baselines = tuple(self.baselines[number] for number in numbers) if protocol.scored else ()
                    yield self._score(protocol, piece.count, cases, order, baselines, before)

    def _score(self, protocol: Protocol, count: int, chunk: Chunk, order: int | None,
               baselines: tuple[BaselineTask, ...], stream: ResultKey | None) -> ScoreTask:
        return ScoreTask(self._title(protocol.how(count), order, chunk), self.model, self.method, chunk, protocol,
                         count, baselines, stream, self.editor_title, self.model_title, order or 0, self.measures,
                         self.answers)

    def _title(self, how: str, order: int | None, chunk: Chunk) -> str:
        shuffled = f" in order {order}" if order else ""
        return f"{self.editor_title} on {self.model_title}{how}{shuffled}: {chunk}"
