"""Every case on a model that has only its own edit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from evaluators.cases import Case
from evaluators.protocols.base import Piece, Protocol, cut
from evaluators.protocols.result import ProtocolResult
from evaluators.scoring.measures import NOTHING_MORE, Measures

PATCHES = 2**32  # bytes of the edits that are held at once, at most
SHARE = 4  # of what is free, a quarter

if TYPE_CHECKING:
    from editors.core.editor import Editor
    from evaluators.scoring.observe import Observation


class SingleProtocol(Protocol):
    """Edits every case on its own and scores it, many at a time in one forward pass."""

    name = "single"
    version = 2
    together = False

    def how(self, count: int) -> str:
        return ""

    def pieces(self, cases: int, chunk: int) -> Iterator[Piece]:
        return cut(0, cases, chunk, 1)

    def run(self, editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation], count: int = 1,
            measures: Measures = NOTHING_MORE) -> ProtocolResult:
        """A case that cannot be edited is in `failed`, and the others go on. An edit that is not finite is scored like
        any other, with `edit.diverged` = 1. Edits whose patches are large are scored before the next ones are made.
        Raises what the editor raised where it fails on every case by its own fault."""
        from evaluators.protocols.editing import edit_alone, edit_and_judge

        model, each = editor.model, editor.needs(editor.config, editor.model.bytes).each
        most = max(int(min(len(cases), PATCHES / each if each else math.inf)), 1)
        size = model.at_once(most, SHARE * each)
        parts = [cases[start: start + size] for start in range(0, len(cases), size)] or [cases]
        return ProtocolResult.joined([edit_and_judge(editor, part, baseline, measures,
                                                     lambda usable: edit_alone(editor, usable)) for part in parts])
