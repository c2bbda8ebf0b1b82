"""Edits cases for a protocol, and finds out whose fault it is where that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from editors.core.editor import Editor
from editors.core.errors import CaseError, InputError
from editors.core.patches.patch import Patch
from evaluators.cases import Case, Edited, EditedFacts, Skipped
from evaluators.metering.meter import Meter
from evaluators.protocols.result import ProtocolResult
from evaluators.scoring.judge import judge, usable
from evaluators.scoring.measures import Measures
from evaluators.scoring.observe import Observation

ELSEWHERE = (InputError, torch.AcceleratorError, torch.OutOfMemoryError, MemoryError)  # no fault of a case

T = TypeVar("T")


def edit_and_judge(editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation], measures: Measures,
                   edit: Callable[[Sequence[Case]], tuple[list[Edited], list[Skipped]]]) -> ProtocolResult:
    """Has `edit` make the edits of the cases that can be scored, judges them, and meters both."""
    meter = Meter(editor.model.device)
    before = {observation.case_id: observation for observation in baseline}
    asked, unasked = usable(editor.model, cases, before, measures)
    with meter.phase("edit"):
        edited, failed = edit(asked)
    with meter.phase("score"):
        judged = judge(editor.model, edited, before, measures)
    return ProtocolResult(judged.scores, failed + unasked, meter.costs, judged.asked)


def edit_alone(editor: Editor, cases: Sequence[Case]) -> tuple[list[Edited], list[Skipped]]:
    """Each case with a patch of its own, and the cases that could not be edited."""
    attempts = _attempt(cases, lambda cases: editor.edit_each([case.request() for case in cases]))
    results = dict(zip((case.id for case in cases), attempts, strict=True))
    errors = {name: result for name, result in results.items() if isinstance(result, Exception)}
    if errors and len(errors) == len(results):
        raise_unless_cases(errors)
    return [Edited(case, patch, EditedFacts.of([case])) for case in cases
            if not isinstance(patch := results[case.id], Exception)], skipped(errors)


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
    done = [case for case in cases if case.id not in errors]
    return done, edit(done), skipped(errors)


def seek_each(editor: Editor, cases: Sequence[Case]) -> tuple[dict[str, Tensor], list[Skipped]]:
    """What the editor's joint edits need of each case by itself, by its id, and the cases of which it finds nothing.

    Raises what the editor raised where its fault lies in no single case.
    """
    attempts = _attempt(cases, lambda part: list(editor.seek([case.request() for case in part])))
    results = dict(zip((case.id for case in cases), attempts, strict=True))
    errors = {name: result for name, result in results.items() if isinstance(result, Exception)}
    if errors and len(errors) == len(results):
        raise_unless_cases(errors)
    return {name: result for name, result in results.items() if not isinstance(result, Exception)}, skipped(errors)


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


def skipped(errors: Mapping[str, Exception]) -> list[Skipped]:
    """The cases that could not be edited, by id, each with what its editor raised."""
    return [Skipped(case_id=name, reason=str(error) if isinstance(error, CaseError) else
                    f"{type(error).__name__}: {error}") for name, error in errors.items()]
