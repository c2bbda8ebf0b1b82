"""What a protocol is: a way to put edits on models before they are judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from editors.core.settings import Settings
from evaluators.cases import Case
from evaluators.protocols.result import ProtocolResult
from evaluators.scoring.measures import NOTHING_MORE, Measures

if TYPE_CHECKING:  # planning loads no torch
    from editors.core.editor import Editor
    from evaluators.protocols.stream import Stream
    from evaluators.scoring.observe import Observation


@dataclass(frozen=True)
class Segment:
    """Cases `start` to `stop` of a stream, edited on the model as the segment before left it."""

    start: int
    stop: int


@dataclass(frozen=True)
class Piece:
    """Cases `start` to `stop` to be scored with `count` edits on a model: edited here, or by the segments before."""

    start: int
    stop: int
    count: int


class Protocol(Settings, ABC):
    """A protocol under its `name` in a campaign's `protocols`; its fields are what can be set there.

    A subclass says how cases are cut into `pieces` and how one is `run`, and bumps `version` when results change. One
    whose edits are made in `Segment`s implements `extend`, too.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    #: Whether several edits meet on one model: then cases come in the campaign's `orders`, without contradictions.
    together: ClassVar[bool] = True
    #: Whether cases are scored against what the unedited model answers.
    scored: ClassVar[bool] = True
    #: Whether a piece is done by a process that has done nothing before, on a device that nothing else uses.
    alone: ClassVar[bool] = False
    #: Whether its joint edits are made on a model without others: then what `Editor.seek` finds can be sought before.
    apart: ClassVar[bool] = False
    #: The field that lists numbers of edits, where there is one; it has to be set.
    numbers: ClassVar[str | None] = None

    @model_validator(mode="after")
    def _has_numbers(self) -> Self:
        if field := self.numbers:
            found = getattr(self, field)
            if not found:
                raise ValueError(f"protocol '{self.name}' needs {field}, such as "
                                 f"{{name: {self.name}, {field}: [1, 10, 100]}}")
            if len(set(found)) < len(found):
                raise ValueError(f"{field} lists a number twice: {', '.join(map(str, found))}")
        return self

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of edits on one model, from the smallest."""
        return tuple(sorted(getattr(self, self.numbers))) if self.numbers else (1,)

    @property
    def cases_needed(self) -> int:
        """How many cases there must be at least."""
        return self.counts[-1]

    @property
    def joint(self) -> bool:
        """Whether it makes several edits as one, which not every editor can."""
        return False

    def identity(self) -> dict[str, Any]:
        """All that determines what becomes of the cases of a piece, as JSON, but for its number of edits."""
        settings = self.model_dump(mode="json", exclude={self.numbers} if self.numbers else None)
        return {"name": self.name, "version": self.version, **settings}

    def how(self, count: int) -> str:
        """How `count` edits were made, behind "ft on gpt-j ..."; empty where it goes without saying."""
        return f" {self.name} {count}"

    def note(self, cases: int) -> str | None:
        """What people should know who take it on so many cases."""
        return None

    @abstractmethod
    def pieces(self, cases: int, chunk: int) -> Iterator[Piece | Segment]:
        """How so many cases are cut into tasks: about `chunk` cases in each, whose edits are `count` on a model.

        A piece behind segments is scored on the model as they left it.
        """

    def times(self, count: int) -> int:
        """How many edits are made on the way to so many; more where they are made again and again."""
        return count

    def unit(self, count: int) -> int:
        """Cases that have to stay together where a piece is too much for the memory."""
        return 1

    def run(self, editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation], count: int,
            measures: Measures = NOTHING_MORE) -> ProtocolResult:
        """Edits and scores the cases of a piece. `baseline` holds the observations of those that can be encoded."""
        raise TypeError(f"protocol '{self.name}' edits in segments")

    def extend(self, editor: Editor, cases: Sequence[Case], stream: Stream) -> Stream:
        """Makes the edits of a segment."""
        raise TypeError(f"protocol '{self.name}' has no segments")


def cut(start: int, stop: int, size: int, count: int) -> Iterator[Piece]:
    """Pieces of `size` cases; the last may be short."""
    return (Piece(first, min(first + size, stop), count) for first in range(start, stop, size))
