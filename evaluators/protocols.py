"""How edits are applied before they are judged. `single`: every case on a model that has only its own edit."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from editors.base import Editor
from editors.core.errors import CaseError, InputError
from editors.core.models import LanguageModel
from editors.core.overlay import UNPATCHED
from editors.core.patch import Patch
from evaluators.cases import Case, Skipped
from evaluators.metrics import EditedFacts, Score, score
from evaluators.scoring import ROLES, Observation, observe, questions

VERSIONS = {"baseline": 1, "single": 1}
EDITED_ROLES = tuple(role for role in ROLES if role != "link")  # links are asked of the unedited model only


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


def baseline(model: LanguageModel, cases: Sequence[Case]) -> tuple[list[Observation], list[Skipped]]:
    """The unedited model's outputs on every probe, and the cases that cannot be encoded for this model."""
    usable, failed = [], []
    for case in cases:
        try:
            questions(model, case)
        except CaseError as error:
            failed.append(Skipped(case_id=case.id, reason=str(error)))
        else:
            usable.append(case)
    return observe(model, usable, [], [UNPATCHED] * len(usable)), failed


def single(editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation]) -> ProtocolResult:
    """Edits every case on its own and scores it. `baseline` holds the observations of the cases that can be encoded.

    A case that cannot be edited is in `failed`, and the others go on. An edit that is not finite is scored like any
    other, with `edit.diverged` = 1. Raises what the editor raised where it fails on every case by its own fault.
    """
    device = editor.model.device
    _reset_peak(device)
    before = {observation.case_id: observation for observation in baseline}
    started = _now(device)
    patches, failed = _edit_each(editor, [case for case in cases if case.id in before])
    edited = _now(device)
    done = [case for case in cases if case.id in patches]
    after = _observe(editor.model, done, patches, before)
    scores = []
    for case in done:
        scores += score([case], [after[case.id]], [before[case.id]], EditedFacts.of([case]))
        scores.append(Score(case.id, case.subject, "edit.diverged", float(not patches[case.id].is_finite)))
    scored = _now(device)
    failed += [Skipped(case_id=case.id, reason=_unusable(editor.model, case))
               for case in cases if case.id not in before]
    return ProtocolResult(scores, failed, edited - started, scored - edited, *_peak_memory(device))


def _edit_each(editor: Editor, cases: Sequence[Case]) -> tuple[dict[str, Patch], list[Skipped]]:
    """Patches by case id, and the cases that could not be edited."""
    results = dict(zip((case.id for case in cases), _attempt(editor, cases), strict=True))
    errors = {name: result for name, result in results.items() if isinstance(result, Exception)}
    if errors and len(errors) == len(results) and not any(isinstance(error, CaseError) for error in errors.values()):
        raise next(iter(errors.values()))
    failed = [Skipped(case_id=name, reason=_describe(error)) for name, error in errors.items()]
    return {name: result for name, result in results.items() if isinstance(result, Patch)}, failed


def _attempt(editor: Editor, cases: Sequence[Case]) -> list[Patch | Exception]:
    """Each case's patch or error. All at once where possible; else by halves, so that only guilty cases fail."""
    if not cases:
        return []
    try:
        return list(editor.edit_each([case.request() for case in cases]))
    except (InputError, torch.AcceleratorError, torch.OutOfMemoryError, MemoryError):
        raise  # not the fault of a case: the task may fare better elsewhere
    except Exception as error:
        if len(cases) == 1:
            return [error]
    half = len(cases) // 2
    return _attempt(editor, cases[:half]) + _attempt(editor, cases[half:])


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, CaseError) else f"{type(error).__name__}: {error}"


def _unusable(model: LanguageModel, case: Case) -> str:
    try:
        questions(model, case)
    except CaseError as error:
        return str(error)
    raise ValueError(f"the baseline lacks case '{case.id}'")


def _observe(model: LanguageModel, cases: Sequence[Case], patches: Mapping[str, Patch],
             before: Mapping[str, Observation]) -> dict[str, Observation]:
    """Observations by case id; an empty patch leaves the unedited model's as they are."""
    edited = [case for case in cases if patches[case.id]]
    after = observe(model, edited, [patches[case.id] for case in edited], range(len(edited)), roles=EDITED_ROLES)
    return {case.id: before[case.id] for case in cases} | {observation.case_id: observation for observation in after}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> tuple[int, Literal["device", "process"]]:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "device"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"
