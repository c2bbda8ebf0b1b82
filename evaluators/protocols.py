"""How edits are applied before they are judged.

`single`: every case on a model that has only its own edit; `batch`: n cases on a model edited once for all of them;
`sequential`: all cases of a stream so far on a model edited for one after another (`extend`, then `judge`).
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from editors.base import Editor
from editors.core.errors import CaseError, InputError
from editors.core.models import LanguageModel
from editors.core.overlay import UNPATCHED, overlay
from editors.core.patch import Patch
from evaluators.cases import Case, Skipped
from evaluators.metrics import EditedFacts, Score, score
from evaluators.scoring import ROLES, Observation, observe, questions

VERSIONS = {"baseline": 1, "single": 1, "batch": 1, "sequential": 1}
EDITED_ROLES = tuple(role for role in ROLES if role != "link")  # links are asked of the unedited model only
STREAM = "stream"  # where a saved patch says which stream it is of
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


def baseline(model: LanguageModel, cases: Sequence[Case]) -> tuple[list[Observation], list[Skipped]]:
    """The unedited model's outputs on every probe, and the cases that cannot be encoded for this model."""
    failed = unusable(model, cases)
    known = {case.case_id for case in failed}
    usable = [case for case in cases if case.id not in known]
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
    scores = _score(editor.model, done, patches, before, {case.id: EditedFacts.of([case]) for case in done})
    scored = _now(device)
    failed += _unanswered(editor.model, cases, before)
    return ProtocolResult(scores, failed, edited - started, scored - edited, *_peak_memory(device))


def batch(editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation], size: int) -> ProtocolResult:
    """Cuts the cases into batches of `size`, edits each batch at once and scores its cases on that one patch.

    A case that cannot be encoded or edited is in `failed`, and its batch is edited without it. Locality leaves out
    what any case of the batch edited. Raises what the editor raised where its fault lies in no single case.
    """
    device = editor.model.device
    _reset_peak(device)
    before = {observation.case_id: observation for observation in baseline}
    started = _now(device)
    patches: dict[str, Patch] = {}
    facts: dict[str, EditedFacts] = {}
    failed: list[Skipped] = []
    for start in range(0, len(cases), size):
        usable = [case for case in cases[start: start + size] if case.id in before]
        patch, guilty = _edit_together(editor, usable)
        failed += guilty
        done = [case for case in usable if case.id not in {each.case_id for each in guilty}]
        patches |= dict.fromkeys((case.id for case in done), patch)
        facts |= dict.fromkeys((case.id for case in done), EditedFacts.of(done))
    edited = _now(device)
    scores = _score(editor.model, [case for case in cases if case.id in patches], patches, before, facts)
    scored = _now(device)
    failed += _unanswered(editor.model, cases, before)
    return ProtocolResult(scores, failed, edited - started, scored - edited, *_peak_memory(device))


@dataclass(frozen=True)
class Stream:
    """Edits made one after another: the patch of them all, what they are about, the cases that could not be edited,
    and the seconds it took."""

    patch: Patch = field(default_factory=Patch)
    facts: EditedFacts = field(default_factory=lambda: EditedFacts.of([]))
    failed: tuple[Skipped, ...] = ()
    seconds: float = 0.0

    def save(self, path: Path | str) -> None:
        """Writes a patch file that `Patch.load` reads too."""
        about = {"facts": sorted(self.facts.facts), "prompts": sorted(self.facts.prompts), "seconds": self.seconds,
                 "failed": [case.model_dump() for case in self.failed]}
        Patch(self.patch.terms, {**self.patch.info, STREAM: about}).save(path)

    @staticmethod
    def load(path: Path | str, device: torch.device | str = "cpu") -> Stream:
        """Reads what `save` wrote."""
        patch = Patch.load(path).to(device)
        info: dict[str, Any] = dict(patch.info)
        about = info.pop(STREAM)
        facts = EditedFacts(frozenset((subject, relation) for subject, relation in about["facts"]),
                            frozenset(about["prompts"]))
        return Stream(Patch(patch.terms, info), facts, tuple(map(Skipped.model_validate, about["failed"])),
                      about["seconds"])


def extend(editor: Editor, cases: Sequence[Case], stream: Stream) -> Stream:
    """Edits the cases one after another, each on the model as the edits before it left it.

    A case that cannot be encoded or edited is in `failed`, and the stream goes on without it. Raises what the editor
    raised where it fails on every one of several cases by its own fault.
    """
    device = editor.model.device
    started = _now(device)
    patch, failed = stream.patch, unusable(editor.model, cases)
    known = {case.case_id for case in failed}
    usable = [case for case in cases if case.id not in known]
    errors: dict[str, Exception] = {}
    for case in usable:
        try:
            with overlay(editor.model, patch):
                (step,) = editor.edit_each([case.request()])
        except ELSEWHERE:
            raise
        except Exception as error:
            errors[case.id] = error
        else:
            patch = (patch + step).compact()
    if 1 < len(errors) == len(usable):
        _raise_unless_cases(errors)
    edited = EditedFacts.of([case for case in usable if case.id not in errors])
    failed += [Skipped(case_id=name, reason=_describe(error)) for name, error in errors.items()]
    return Stream(patch, EditedFacts(stream.facts.facts | edited.facts, stream.facts.prompts | edited.prompts),
                  (*stream.failed, *failed), stream.seconds + _now(device) - started)


def judge(model: LanguageModel, cases: Sequence[Case], stream: Stream,
          baseline: Sequence[Observation]) -> ProtocolResult:
    """Scores cases that are part of a stream on the model as the whole stream left it."""
    _reset_peak(model.device)
    started = _now(model.device)
    before = {observation.case_id: observation for observation in baseline}
    failed = {case.case_id: case for case in stream.failed}
    done = [case for case in cases if case.id not in failed]
    scores = _score(model, done, dict.fromkeys((case.id for case in done), stream.patch), before,
                    dict.fromkeys((case.id for case in done), stream.facts))
    seconds = _now(model.device) - started
    return ProtocolResult(scores, [failed[case.id] for case in cases if case.id in failed], stream.seconds, seconds,
                          *_peak_memory(model.device))


def sequential(editor: Editor, cases: Sequence[Case], baseline: Sequence[Observation],
               lengths: Sequence[int]) -> Iterator[tuple[int, ProtocolResult]]:
    """One stream over the cases; at each length, from the shortest, all edits so far are scored."""
    stream = Stream()
    for start, end in pairwise([0, *sorted(lengths)]):
        stream = extend(editor, cases[start:end], stream)
        yield end, judge(editor.model, cases[:end], stream, baseline)



def _edit_each(editor: Editor, cases: Sequence[Case]) -> tuple[dict[str, Patch], list[Skipped]]:
    """Patches by case id, and the cases that could not be edited."""
    attempts = _attempt(cases, lambda cases: editor.edit_each([case.request() for case in cases]))
    results = dict(zip((case.id for case in cases), attempts, strict=True))
    errors = {name: result for name, result in results.items() if isinstance(result, Exception)}
    if errors and len(errors) == len(results):
        _raise_unless_cases(errors)
    failed = [Skipped(case_id=name, reason=_describe(error)) for name, error in errors.items()]
    return {name: result for name, result in results.items() if not isinstance(result, Exception)}, failed


def _edit_together(editor: Editor, cases: Sequence[Case]) -> tuple[Patch, list[Skipped]]:
    """The joint patch of all cases that can be edited, and the others."""
    def edit(cases: Sequence[Case]) -> Patch:
        return editor.edit([case.request() for case in cases]) if cases else Patch()

    try:
        return edit(cases), []
    except ELSEWHERE:
        raise
    except Exception:  # whose fault is it?
        results = zip(cases, _attempt(cases, lambda part: [edit(part)] * len(part)), strict=True)
    errors = {case.id: result for case, result in results if isinstance(result, Exception)}
    if len(errors) == len(cases):
        _raise_unless_cases(errors)
    failed = [Skipped(case_id=name, reason=_describe(error)) for name, error in errors.items()]
    return edit([case for case in cases if case.id not in errors]), failed


def _raise_unless_cases(errors: Mapping[str, Exception]) -> None:
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


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, CaseError) else f"{type(error).__name__}: {error}"


def unusable(model: LanguageModel, cases: Sequence[Case]) -> list[Skipped]:
    """Those of the cases that cannot be encoded for this model."""
    failed = []
    for case in cases:
        try:
            questions(model, case)
        except CaseError as error:
            failed.append(Skipped(case_id=case.id, reason=str(error)))
    return failed


def _unanswered(model: LanguageModel, cases: Sequence[Case], before: Mapping[str, Observation]) -> list[Skipped]:
    """Why cases have no baseline. Raises `ValueError` where one should have."""
    missing = [case for case in cases if case.id not in before]
    failed = unusable(model, missing)
    if sound := {case.id for case in missing} - {case.case_id for case in failed}:
        raise ValueError(f"the baseline lacks case '{min(sound)}'")
    return failed


def _score(model: LanguageModel, cases: Sequence[Case], patches: Mapping[str, Patch],
           before: Mapping[str, Observation], facts: Mapping[str, EditedFacts]) -> list[Score]:
    """Scores each case under its patch; `facts` are what that patch edited. All by case id."""
    after = _observe(model, cases, patches, before)
    finite = {id(patch): patch.is_finite for patch in patches.values()}
    scores = []
    for case in cases:
        scores += score([case], [after[case.id]], [before[case.id]], facts[case.id])
        scores.append(Score(case.id, case.subject, "edit.diverged", float(not finite[id(patches[case.id])])))
    return scores


def _observe(model: LanguageModel, cases: Sequence[Case], patches: Mapping[str, Patch],
             before: Mapping[str, Observation]) -> dict[str, Observation]:
    """Observations by case id; an empty patch leaves the unedited model's as they are."""
    edited = [case for case in cases if patches[case.id]]
    distinct = {id(patches[case.id]): patches[case.id] for case in edited}
    place = {name: number for number, name in enumerate(distinct)}
    after = observe(model, edited, list(distinct.values()), [place[id(patches[case.id])] for case in edited],
                    roles=EDITED_ROLES)
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
