"""Asks an unedited model for the facts that cases edit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from editors.core.errors import CaseError
from editors.core.models.model import LanguageModel
from editors.core.patches.overlay import UNPATCHED
from evaluators.cases import Case, Role, Skipped
from evaluators.scoring.judge import check_finite
from evaluators.scoring.known import Recall, names_of
from evaluators.scoring.observe import Row, answer
from evaluators.scoring.usable import unusable

ASKED: tuple[Role, ...] = ("rewrite",)


def recall(model: LanguageModel, cases: Sequence[Case]) -> tuple[list[Recall], list[Skipped]]:
    """How the model answers the prompt of every case with a true answer, and the cases among them whose edit it cannot
    be asked about (`usable`). Other questions of a case are not looked at.

    Raises `InputError` where the model's outputs are not finite.
    """
    told = [case for case in cases if names_of(case)]
    failed = unusable(model, told, roles=ASKED)
    unfit = {case.case_id for case in failed}
    asked = {case.id: list(_rows(model, case)) for case in told if case.id not in unfit}
    answers = answer(model, {row for rows in asked.values() for row in rows}, [])
    recalls = []
    for case_id, rows in asked.items():
        outputs = [answers[row] for row in rows]
        check_finite(model, case_id, outputs)
        recalls.append(Recall(case_id, any(output.exact for output in outputs),
                              min(output.rank_first for output in outputs)))
    return recalls, failed


def _rows(model: LanguageModel, case: Case) -> Iterator[Row]:
    """The prompt with every name of the true answer. A further name that the model cannot read is not asked for."""
    true, *others = names_of(case)
    yield Row(UNPATCHED, model.encode(case.prompt, true))
    for name in others:
        try:
            encoded = model.encode(case.prompt, name)
        except CaseError:
            continue
        if encoded.target and not model.lost(name):
            yield Row(UNPATCHED, encoded)
