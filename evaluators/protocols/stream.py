"""Sequential editing: one edit after another on one model, scored at some of its lengths.

A `Stream` is its whole state: `extend` makes it longer, `judge_stream` scores cases of it, and it can be saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from editors.core.editor import Editor
from editors.core.errors import InputError, first_problem
from editors.core.files import damaged
from editors.core.headers import PatchHeader
from editors.core.models.model import LanguageModel
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Patch
from evaluators.cases import Case, Edited, EditedFacts, Role, Skipped
from evaluators.metering.meter import Meter
from evaluators.metering.spent import Costs
from evaluators.protocols.editing import ELSEWHERE, edit_together, raise_unless_cases, skipped
from evaluators.protocols.result import ProtocolResult
from evaluators.scoring.judge import judge, usable
from evaluators.scoring.measures import NOTHING_MORE, Measures
from evaluators.scoring.metrics import Score, score
from evaluators.scoring.observe import Observation, observe
from evaluators.scoring.usable import unusable

SAVED_AS = "stream"  # where a saved patch says which stream it is of
NEWEST_ROLES: tuple[Role, ...] = ("rewrite", "paraphrase")


class _Saved(BaseModel):
    """What the file of a stream says besides its patch."""

    model_config = ConfigDict(extra="forbid")

    facts: frozenset[tuple[str, str]]
    prompts: frozenset[str]
    failed: tuple[Skipped, ...]
    newest: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Stream:
    """Edits made one after another: the patch of them all, what they are about, the cases that could not be edited, and
    the seconds it took.

    `newest` are the scores by case and metric that the edits since the last point had right after they were made, and
    `costs` what making and scoring them took.
    """

    patch: Patch = field(default_factory=Patch)
    facts: EditedFacts = field(default_factory=lambda: EditedFacts.of([]))
    failed: tuple[Skipped, ...] = ()
    seconds: float = 0.0
    newest: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    costs: Costs = field(default_factory=dict)

    def save(self, path: Path | str) -> None:
        """Writes a patch file that `Patch.load` reads too. It has no `seconds` and no `costs`: the same edits are the
        same bytes."""
        about = {"facts": sorted(self.facts.facts), "prompts": sorted(self.facts.prompts),  # as `_Saved` reads them
                 "failed": [case.model_dump() for case in self.failed], "newest": self.newest}
        Patch(self.patch.terms, {**self.patch.info, SAVED_AS: about}).save(path)

    @staticmethod
    def load(path: Path | str, device: torch.device | str = "cpu") -> Stream:
        """Reads what `save` wrote, without `seconds` and `costs`. Raises `InputError` for any other file."""
        patch = Patch.load(path).to(device)
        info: dict[str, Any] = dict(patch.info)
        if SAVED_AS not in info:
            raise InputError(f"'{path}' is a patch, and no stream of edits")
        try:
            about = _Saved.model_validate(info.pop(SAVED_AS))
        except ValidationError as error:
            raise damaged(path, PatchHeader, f"its stream has {first_problem(error)}") from error
        return Stream(Patch(patch.terms, info), EditedFacts(about.facts, about.prompts), about.failed,
                      newest=about.newest)


def extend(editor: Editor, cases: Sequence[Case], stream: Stream, step: int = 1) -> Stream:
    """Edits the cases `step` at a time, each step on the model as the steps before it left it.

    A case that cannot be encoded or edited is in `failed`, and the stream goes on without it. Raises what the editor
    raised where it fails on every one of several cases by its own fault.
    """
    meter = Meter(editor.model.device)
    failed = unusable(editor.model, cases)
    known = {case.case_id for case in failed}
    sound = [case for case in cases if case.id not in known]
    longer, errors = replace(stream, failed=(*stream.failed, *failed), newest={}), dict[str, Exception]()
    for start in range(0, len(sound), step):
        with meter.phase("edit"):
            done, more, guilty = edit_on(editor, sound[start: start + step], longer.patch, errors)
            patch = (longer.patch + more).compact().slim()
        facts = EditedFacts.of(done)
        with meter.phase("score"):
            newest = {**longer.newest, **_newest(editor.model, done, patch)}
        longer = replace(longer, patch=patch, failed=(*longer.failed, *guilty), newest=newest,
                         facts=EditedFacts(longer.facts.facts | facts.facts, longer.facts.prompts | facts.prompts))
    if 1 < len(errors) == len(sound):
        raise_unless_cases(errors)
    took = meter.costs["edit"].seconds if sound else 0.0
    return replace(longer, seconds=stream.seconds + took, costs=meter.costs)


def edit_on(editor: Editor, cases: Sequence[Case], patch: Patch,
            errors: dict[str, Exception]) -> tuple[list[Case], Patch, list[Skipped]]:
    """The cases that could be edited, as one, on the model with `patch` on it; their own patch; and the other cases, of
    which `errors` is told."""
    try:
        with overlay(editor.model, patch):
            if len(cases) > 1:
                done, more, guilty = edit_together(editor, cases)
            else:
                (more,) = editor.edit_each([cases[0].request()])
                done, guilty = list(cases), []
        return done, more, guilty
    except ELSEWHERE:
        raise
    except Exception as error:
        failed = dict.fromkeys((case.id for case in cases), error)
        errors |= failed
        return [], Patch(), skipped(failed)


def _newest(model: LanguageModel, cases: Sequence[Case], patch: Patch) -> dict[str, dict[str, float]]:
    """How edits that were just made hold, by case and metric."""
    bare = [Case(id=case.id, subject=case.subject, prompt=case.prompt, target_new=case.target_new,
                 target_true=case.target_true, paraphrases=case.paraphrases) for case in cases]
    observed = observe(model, bare, [patch], [0] * len(bare), roles=NEWEST_ROLES)
    scores: dict[str, dict[str, float]] = {case.id: {} for case in cases}
    for each in score(bare, observed, observed, EditedFacts.of(bare)):
        scores[each.case_id][each.metric] = each.value
    return scores


def judge_stream(model: LanguageModel, cases: Sequence[Case], stream: Stream, baseline: Sequence[Observation],
                 measures: Measures = NOTHING_MORE) -> ProtocolResult:
    """Scores cases that are part of a stream on the model as the whole stream left it; those edited since its last
    point also as they were when just made."""
    meter = Meter(model.device)
    before = {observation.case_id: observation for observation in baseline}
    failed = {case.case_id: case for case in stream.failed}
    made = [case for case in cases if case.id not in failed]
    done, unasked = usable(model, made, before, measures)
    with meter.phase("score"):
        scores, asked = judge(model, [Edited(case, stream.patch, stream.facts) for case in done], before, measures)
    scores += [Score(case.id, case.subject, f"newest.{metric}", value)
               for case in done for metric, value in stream.newest.get(case.id, {}).items()]
    unscored = [failed[case.id] for case in cases if case.id in failed] + unasked
    return ProtocolResult(scores, unscored, meter.costs, asked)
