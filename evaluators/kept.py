"""Edits that are made to be kept: made as one patch, asked before and after, and scored as protocols score theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from editors.core.editor import Editor
from editors.core.models.model import LanguageModel
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Dense, Patch
from evaluators.cases import Case, Edited, EditedFacts, Skipped
from evaluators.protocols.editing import raise_unless_cases
from evaluators.protocols.stream import edit_on
from evaluators.scoring.decoding import Decoding, generate
from evaluators.scoring.judge import baseline, check_edits, judge
from evaluators.scoring.metrics import Score
from evaluators.scoring.usable import unusable


def make(editor: Editor, cases: Sequence[Case], step: int) -> tuple[Patch, list[Case], list[Skipped]]:
    """One patch of edits that are made `step` at a time, each step on the model as those before it left it; the cases
    that it edits, and those that could not be edited.

    Each step is a part of the patch's origin, and can be taken away again. But changes of whole weights are added up as
    they come: a hundred of them would be a hundred times as large. Raises `InputError` where the unedited model's
    answers are not finite.
    """
    skipped = unusable(editor.model, cases)
    known = {case.case_id for case in skipped}
    sound = [case for case in cases if case.id not in known]
    check_edits(editor.model, sound)
    patch, below, done, errors = Patch(), Patch(), list[Case](), dict[str, Exception]()
    for start in range(0, len(sound), step):
        edited, more, guilty = edit_on(editor, sound[start: start + step], below, errors)
        skipped += guilty
        if edited:
            done += edited
            below = (below + more).compact()
            patch += editor.signed(more, [case.request() for case in edited])
            patch = patch.compact() if any(isinstance(term, Dense) for term in more.terms) else patch
    if 1 < len(errors) == len(sound):
        raise_unless_cases(errors)
    return patch, done, skipped


@dataclass(frozen=True)
class Assessment:
    """The scores of cases under a patch, and the cases that this model cannot be asked about."""

    scores: Sequence[Score]
    skipped: Sequence[Skipped]

    def means(self) -> dict[str, tuple[float, int]]:
        """By metric, the mean over cases and how many they are."""
        values: dict[str, list[float]] = {}
        for each in self.scores:
            values.setdefault(each.metric, []).append(each.value)
        return {metric: (fmean(found), len(found)) for metric, found in values.items()}

    def of_case(self, metric: str) -> Mapping[str, float]:
        return {each.case_id: each.value for each in self.scores if each.metric == metric}


def assess(model: LanguageModel, cases: Sequence[Case], patch: Patch) -> Assessment:
    """Scores cases on the model with the patch on it, against the unedited model. Locality leaves out what the patch
    edits: the cases among these, where it says which it is of, else all of them."""
    before, skipped = baseline(model, cases)
    known = {case.case_id for case in skipped}
    asked = [case for case in cases if case.id not in known]
    facts = EditedFacts.of([case for case in asked if is_of(patch, case)])
    judged = judge(model, [Edited(case, patch, facts) for case in asked], {each.case_id: each for each in before})
    return Assessment(judged.scores, skipped)


def is_of(patch: Patch, case: Case) -> bool:
    """Whether a patch edits a case, as far as it says."""
    return patch.origin is None or any(
        (fact.prompt, fact.target) == (case.prompt, case.target_new) for fact in patch.origin.facts)


def before_and_after(model: LanguageModel, prompt: str, patch: Patch, tokens: int) -> tuple[str, str]:
    """What the unedited and the edited model write on with, the most probable token at a time. Raises `CaseError` for a
    prompt that cannot be read."""
    asked, decoding = [model.encode(prompt)], Decoding(tokens)
    (before,) = generate(model, asked, decoding)
    with overlay(model, patch):
        (after,) = generate(model, asked, decoding)
    return before, after
