"""How edits are applied before they are judged: `single`, every case on a model that has only its own edit; `batch`, n
cases on a model edited once for all of them. `streams` has the third way, one edit after another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from editors.core.editor import Editor
from editors.core.errors import CaseError, InputError
from editors.core.patches.patch import Patch
from evaluators.cases import Case, Skipped
from evaluators.protocols.meters import now, peak_memory, reset_peak
from evaluators.scoring.judge import Edited, judge, unanswered
from evaluators.scoring.measures import NOTHING_MORE, Measures
from evaluators.scoring.metrics import EditedFacts, Score
from evaluators.scoring.observe import Observation

VERSIONS = {"baseline": 1, "single": 1, "batch": 1, "sequential": 2}
ELSEWHERE = (InputError, torch.AcceleratorError, torch.OutOfMemoryError, MemoryError)  # no fault of a case

T = TypeVar("T")


@dataclass(frozen=True)
class ProtocolResult:
    """Scores, the cases that have none, and what it cost.

    Seconds are wall time with the device synchronised. `peak_memory` is in bytes: of `device` memory since the
    protocol began, or on a CPU the resident set of the `process` since it started.
    """

    scores: list[Score]
    failed: list[Skipped]
    seconds_edit: float
    seconds_score: float
    peak_memory: int
    memory_of: Literal["device", "process"]


def single(editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation],
           measures: Measures = NOTHING_MORE) -> ProtocolResult:
    """Edits every case on its own and scores it. `baseline` holds the observations of the cases that can be encoded.

    A case that cannot be edited is in `failed`, and the others go on. An edit that is not finite is scored like any
    other, with `edit.diverged` = 1. Raises what the editor raised where it fails on every case by its own fault.
    """
    def edit(cases: Sequence[Case]) -> tuple[list[Edited], list[Skipped]]:
        patches, failed = _edit_each(editor, cases)
        return [Edited(case, patches[case.id], EditedFacts.of([case])) for case in cases if case.id in patches], failed

    return _edit_and_judge(editor, cases, baseline, measures, edit)


def batch(editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation], size: int,
          measures: Measures = NOTHING_MORE) -> ProtocolResult:
    """Cuts the cases into batches of `size`, edits each batch at once and scores its cases on that one patch.

    A case that cannot be encoded or edited is in `failed`, and its batch is edited without it. Locality leaves out
    what any case of the batch edited. Raises what the editor raised where its fault lies in no single case.
    """
    batches = [cases[start: start + size] for start in range(0, len(cases), size)]

    def edit(usable: Sequence[Case]) -> tuple[list[Edited], list[Skipped]]:
        known, edited, failed = {case.id for case in usable}, list[Edited](), list[Skipped]()
        for each in batches:
            done, patch, guilty = edit_together(editor, [case for case in each if case.id in known])
            facts = EditedFacts.of(done)
            edited += [Edited(case, patch, facts) for case in done]
            failed += guilty
        return edited, failed

    return _edit_and_judge(editor, cases, baseline, measures, edit)


def _edit_and_judge(editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation], measures: Measures,
                    edit: Callable[[Sequence[Case]], tuple[list[Edited], list[Skipped]]]) -> ProtocolResult:
    device = editor.model.device
    reset_peak(device)
    before = {observation.case_id: observation for observation in baseline}
    started = now(device)
    edited, failed = edit([case for case in cases if case.id in before])
    done = now(device)
    scores = judge(editor.model, edited, before, measures)
    scored = now(device)
    failed += unanswered(editor.model, cases, before, measures)
    return ProtocolResult(scores, failed, done - started, scored - done, *peak_memory(device))


def _edit_each(editor: Editor, cases: Sequence[Case]) -> tuple[dict[str, Patch], list[Skipped]]:
    """Patches by case id, and the cases that could not be edited."""
    attempts = _attempt(cases, lambda cases: editor.edit_each([case.request() for case in cases]))
    results = dict(zip((case.id for case in cases), attempts, strict=True))
    errors = {name: result for name, result in results.items() if isinstance(result, Exception)}
    if errors and len(errors) == len(results):
        raise_unless_cases(errors)
    failed = [Skipped(case_id=name, reason=describe(error)) for name, error in errors.items()]
    return {name: result for name, result in results.items() if not isinstance(result, Exception)}, failed


def edit_together(editor: Editor, cases: Sequence[Case]) -> tuple[list[Case], Patch, list[Skipped]]:
    """The cases that can be edited, their joint patch, and the other cases.

    Raises what the editor raised where its fault lies in no single case.
    """
    def edit(cases: Sequence[Case]) -> Patch:
        return editor.edit([case.request() for case in cases]) if cases else Patch()

    try:
        return list(cases), edit(cases), []
    except ELSEWHERE:
        raise
    except Exception:  # whose fault is it?
        results = zip(cases, _attempt(cases, lambda part: [edit(part)] * len(part)), strict=True)
    errors = {case.id: result for case, result in results if isinstance(result, Exception)}
    if len(errors) == len(cases):
        raise_unless_cases(errors)
    failed = [Skipped(case_id=name, reason=describe(error)) for name, error in errors.items()]
    done = [case for case in cases if case.id not in errors]
    return done, edit(done), failed


def raise_unless_cases(errors: Mapping[str, Exception]) -> None:
    """Raises the first error where none of them is about a case."""
    if not any(isinstance(error, CaseError) for error in errors.values()):
        raise next(iter(errors.values()))


def _attempt(cases: Sequence[Case], edit: Callable[[Sequence[Case]], Sequence[T]]) -> list[T | Exception]:
    """Each case's result or error. All at once where possible; else by halves, so that only guilty cases fail."""
    if not cases:
        return []
    try:
        return list(edit(cases))
    except ELSEWHERE:
        raise  # the task may fare better elsewhere
    except Exception as error:
        if len(cases) == 1:
            return [error]
    half = len(cases) // 2
    return _attempt(cases[:half], edit) + _attempt(cases[half:], edit)


def describe(error: Exception) -> str:
    return str(error) if isinstance(error, CaseError) else f"{type(error).__name__}: {error}"
