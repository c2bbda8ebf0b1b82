"""The tasks of one cell of a campaign: an editor on a model and a data set, with a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cluster.plan.cutting import CampaignCases
from cluster.plan.refs import Chunk, ModelRef
from cluster.plan.tasks import BaselineTask, Method, ScoreTask, StreamTask, Task, ValuesTask
from cluster.store.store import ResultKey
from editors import get_editor
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
                    values = tuple(self._values[number] for number in numbers) if self._apart(protocol) else ()
                    yield from values
                    yield ScoreTask(self._title(protocol.how(piece.count), order, cases), self.model, self.method,
                                    cases, protocol, piece.count, baselines, before, self.editor_title,
                                    self.model_title, order or 0, self.measures, self.answers, values)

    def _apart(self, protocol: Protocol) -> bool:
        return protocol.apart and get_editor(self.method.editor.name).apart

    @cached_property
    def _values(self) -> list[ValuesTask]:
        """What joint edits of each chunk need, whichever its cases meet in one."""
        method = replace(self.method, statistics=None)
        return [ValuesTask(self._title(" values", None, baseline.chunk), self.model, method, baseline.chunk)
                for baseline in self.baselines]

    def _title(self, how: str, order: int | None, chunk: Chunk) -> str:
        shuffled = f" in order {order}" if order else ""
        return f"{self.editor_title} on {self.model_title}{how}{shuffled}: {chunk}"
