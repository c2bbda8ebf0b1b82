"""One edit after another on one model, scored at some of its lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from evaluators.cases import Case
from evaluators.protocols.base import Piece, Protocol, Segment, cut

if TYPE_CHECKING:
    from editors.core.editor import Editor
    from evaluators.protocols.stream import Stream


class SequentialProtocol(Protocol):
    """A stream of edits, each on the model as those before it left it; at each of the `lengths` all edits so far are
    scored."""

    name = "sequential"
    version = 4
    numbers = "lengths"

    lengths: tuple[PositiveInt, ...] = ()
    """After how many edits the model is scored, such as [1, 10, 100] (Yao et al. 2023, figure 7)."""
    step: PositiveInt = 1
    """How many edits are made at a time, each such step as one joint edit. Ours."""

    @property
    def joint(self) -> bool:
        return self.step > 1

    def how(self, count: int) -> str:
        return f" after {count} edits"

    def pieces(self, cases: int, chunk: int) -> Iterator[Piece | Segment]:
        """Segments between lengths, and at each length the scores of all edits so far."""
        for start, end in pairwise([0, *self.counts]):
            yield Segment(start, end)
            yield from cut(0, end, chunk, end)

    def extend(self, editor: Editor, cases: Sequence[Case], stream: Stream) -> Stream:
        from evaluators.protocols.stream import extend

        return extend(editor, cases, stream, self.step)
