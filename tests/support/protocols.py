"""Protocols without a campaign: one call for a whole data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from editors.core.editor import Editor
from evaluators.cases import Case
from evaluators.protocols.base import Segment
from evaluators.protocols.batch import BatchProtocol
from evaluators.protocols.result import ProtocolResult
from evaluators.protocols.sequential import SequentialProtocol
from evaluators.protocols.single import SingleProtocol
from evaluators.protocols.stream import Stream, judge_stream
from evaluators.scoring.measures import NOTHING_MORE, Measures
from evaluators.scoring.observe import Observation


def single(editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation],
           measures: Measures = NOTHING_MORE) -> ProtocolResult:
    return SingleProtocol().run(editor, cases, baseline, 1, measures)


def batch(editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation], size: int,
          measures: Measures = NOTHING_MORE) -> ProtocolResult:
    return BatchProtocol(sizes=(size,)).run(editor, cases, baseline, size, measures)


def sequential(editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation], lengths: Sequence[int],
               step: int = 1, measures: Measures = NOTHING_MORE) -> Iterator[tuple[int, ProtocolResult]]:
    """One stream over the cases; at each length, from the shortest, all edits so far are scored."""
    protocol, stream = SequentialProtocol(lengths=tuple(lengths), step=step), Stream()
    for piece in protocol.pieces(len(cases), len(cases)):
        if isinstance(piece, Segment):
            stream = protocol.extend(editor, cases[piece.start:piece.stop], stream)
        else:
            yield piece.count, judge_stream(editor.model, cases[piece.start:piece.stop], stream, baseline, measures)
