"""Many cases on a model edited once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from evaluators.cases import Case, Edited, EditedFacts, Skipped
from evaluators.protocols.base import Piece, Protocol, cut
from evaluators.protocols.result import ProtocolResult
from evaluators.scoring.measures import NOTHING_MORE, Measures

if TYPE_CHECKING:
    from editors.core.editor import Editor
    from evaluators.scoring.observe import Observation


class BatchProtocol(Protocol):
    """Cuts the cases into batches of each of the `sizes`, edits each batch at once, and scores its cases on that one
    model."""

    name = "batch"
    version = 2
    numbers = "sizes"
    apart = True

    sizes: tuple[PositiveInt, ...] = ()
    """How many cases are edited at once, such as [1, 10, 100] (Yao et al. 2023, figure 6)."""

    @property
    def joint(self) -> bool:
        return True

    def how(self, count: int) -> str:
        return f" {count} at once"

    def note(self, cases: int) -> str | None:
        short = [f"batches of {size} leave out the last {cases % size} of {cases} cases, which make no whole batch"
                 for size in self.counts if cases % size]
        return "; ".join(short) or None

    def pieces(self, cases: int, chunk: int) -> Iterator[Piece]:
        """As many whole batches in a task as a chunk holds, but at least one."""
        for count in self.counts:
            yield from cut(0, cases // count * count, max(1, chunk // count) * count, count)

    def unit(self, count: int) -> int:
        return count

    def run(self, editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation], count: int,
            measures: Measures = NOTHING_MORE) -> ProtocolResult:
        """A case that cannot be encoded or edited is in `failed`, and its batch is edited without it. Locality leaves
        out what any case of the batch edited. Raises what the editor raised where its fault lies in no single case."""
        from evaluators.protocols.editing import edit_and_judge, edit_together

        batches = [cases[start: start + count] for start in range(0, len(cases), count)]

        def edit(usable: Sequence[Case]) -> tuple[list[Edited], list[Skipped]]:
            known, edited, failed = {case.id for case in usable}, list[Edited](), list[Skipped]()
            for each in batches:
                done, patch, guilty = edit_together(editor, [case for case in each if case.id in known])
                facts = EditedFacts.of(done)
                edited += [Edited(case, patch, facts) for case in done]
                failed += guilty
            return edited, failed

        return edit_and_judge(editor, cases, baseline, measures, edit)
