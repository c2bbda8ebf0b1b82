"""Scores cases under their patches: every measure of every case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch

from editors.core.errors import InputError
from editors.core.models.model import LanguageModel
from editors.core.patches.norms import patch_norm
from editors.core.patches.overlay import UNPATCHED
from editors.core.patches.patch import Patch
from evaluators.cases import Case, Edited, Role, Skipped
from evaluators.scoring.measures import NOTHING_MORE, Measures
from evaluators.scoring.metrics import Score, score
from evaluators.scoring.observe import Observation, Outputs, observe
from evaluators.scoring.said import Asked
from evaluators.scoring.usable import unusable

EDITS: tuple[Role, ...] = ("rewrite",)  # the questions that are the edits themselves


class Judged(NamedTuple):
    """The scores of cases, and what they were asked and answered."""

    scores: list[Score]
    asked: list[Asked]


def baseline(model: LanguageModel, cases: Sequence[Case],
             measures: Measures = NOTHING_MORE) -> tuple[list[Observation], list[Skipped]]:
    """The unedited model's answers to every question, and the cases that this model cannot be asked about.

    Raises `InputError` where answers are not finite: whatever an edit does to such a model, its numbers mean nothing.
    """
    failed = unusable(model, cases, measures)
    known = {case.case_id for case in failed}
    asked = [case for case in cases if case.id not in known]
    observations = _observe(model, asked, [], [UNPATCHED] * len(asked), measures, measures.roles)
    for each in observations:
        check_finite(model, each.case_id, each.outputs.values())
    return observations, failed


def check_edits(model: LanguageModel, cases: Sequence[Case]) -> None:
    """Raises `InputError` where the unedited model's answers to the edits' own prompts are not finite: nothing can be
    learned on it. The cases are usable."""
    for each in observe(model, cases, [], [UNPATCHED] * len(cases), roles=EDITS):
        check_finite(model, each.case_id, each.outputs.values())


def check_text(model: LanguageModel) -> None:
    """Raises `InputError` where the outputs of an unedited model, for which no case is known, are not finite on a
    text."""
    with torch.no_grad():
        if not model.target_logits(model.collate([model.encode("The", "end")])).isfinite().all():
            raise _not_finite(model, "those on 'The end'")


def check_finite(model: LanguageModel, case_id: str, outputs: Iterable[Outputs]) -> None:
    """Raises `InputError` where the unedited model's answers to a case are not finite."""
    if not all(each.is_finite for each in outputs):
        raise _not_finite(model, f"those of case '{case_id}'")


def _not_finite(model: LanguageModel, such: str) -> InputError:
    dtype = str(model.module.dtype).removeprefix("torch.")
    return InputError(f"the unedited model '{model.name}' has outputs that are not finite in {dtype}, such as {such}: "
                      "take another dtype (bfloat16, float32), or weights that are whole")


def usable(model: LanguageModel, cases: Sequence[Case], before: Mapping[str, Observation],
           measures: Measures) -> tuple[list[Case], list[Skipped]]:
    """The cases that can be scored, and the others. Raises `ValueError` where a usable one has no baseline."""
    failed = unusable(model, cases, measures)
    known = {case.case_id for case in failed}
    left = [case for case in cases if case.id not in known]
    if lacking := [case.id for case in left if case.id not in before]:
        raise ValueError(f"the baseline lacks case '{min(lacking)}'")
    return left, failed


def judge(model: LanguageModel, edited: Sequence[Edited], before: Mapping[str, Observation],
          measures: Measures = NOTHING_MORE) -> Judged:
    """Every score of each case under its patch, and what was said. `before` are the unedited model's observations, by
    case id."""
    after = _after(model, edited, before, measures)
    patches = {id(each.patch): each.patch for each in edited}
    finite = {name: patch.is_finite for name, patch in patches.items()}
    norms = {name: patch_norm(patch) for name, patch in patches.items()}
    more: dict[str, list[Score]] = defaultdict(list)
    for score_of_measure in measures.score(model, edited):
        more[score_of_measure.case_id].append(score_of_measure)
    scores = []
    for each in edited:
        case = each.case
        scores += [*score([case], [after[case.id]], [before[case.id]], each.facts), *more[case.id],
                   Score(case.id, case.subject, "edit.diverged", float(not finite[id(each.patch)]))]
    return Judged(scores, [Asked(each.case, after[each.case.id], before[each.case.id], each.facts,
                                 norms[id(each.patch)]) for each in edited])


def _after(model: LanguageModel, edited: Sequence[Edited], before: Mapping[str, Observation],
           measures: Measures) -> dict[str, Observation]:
    """Observations by case id; an empty patch leaves the unedited model's as they are."""
    changed = [each for each in edited if each.patch]
    distinct = {id(each.patch): each.patch for each in changed}
    place = {name: number for number, name in enumerate(distinct)}
    after = _observe(model, [each.case for each in changed], list(distinct.values()),
                     [place[id(each.patch)] for each in changed], measures, measures.edited_roles, before)
    return {each.case.id: before[each.case.id] for each in edited} | {one.case_id: one for one in after}


def _observe(model: LanguageModel, cases: Sequence[Case], patches: Sequence[Patch], rows: Sequence[int],
             measures: Measures, roles: Collection[Role],
             before: Mapping[str, Observation] | None = None) -> list[Observation]:
    observations = observe(model, cases, patches, rows, roles=roles, kl_roles=measures.compared, before=before)
    return measures.observe(model, cases, observations, patches, rows)
