import math

import pytest
import torch

from editors.base import Editor, EditorConfig
from editors.core.errors import CaseError, InputError
from editors.core.patch import LowRank, Patch
from editors.identity import Identity
from evaluators import protocols
from evaluators.metrics import EditedFacts, score
from evaluators.protocols import EDITED_ROLES, baseline, single
from evaluators.scoring import observe


class Scripted(Editor):
    """Makes a patch from the request's prompt alone; fails or diverges where the target says so."""

    name = "scripted"
    version = 1

    def __init__(self, model):
        super().__init__(model, EditorConfig())
        self.calls = []

    def edit_each(self, requests):
        self.calls.append(len(requests))
        return [self.patch(request) for request in requests]

    def patch(self, request):
        errors = {"case": CaseError("no such subject"), "crash": RuntimeError("singular matrix"),
                  "user": InputError("statistics are missing")}
        if request.target in errors:
            raise errors[request.target]
        generator = torch.Generator().manual_seed(len(request.prompt))
        column = torch.randn(32, 1, generator=generator) * (math.nan if request.target == "nan" else 1)
        return Patch((LowRank(self.model.down_path(1), column, torch.randn(64, 1, generator=generator)),))


@pytest.fixture
def editor(tiny_gptj):
    return Scripted(tiny_gptj)


def with_target(case, target, name):
    return case.model_copy(update={"target_new": target, "id": name})


def too_long(case, name):
    return case.model_copy(update={"paraphrases": ("far too long " * 100,), "id": name})


def run(editor, cases):
    before, failed = baseline(editor.model, cases)
    assert len(before) + len(failed) == len(cases)
    return single(editor, cases, before)


def test_baseline_records_cases_that_cannot_be_encoded(tiny_gptj, cases):
    observed, failed = baseline(tiny_gptj, [cases[0], too_long(cases[1], "long"), cases[2]])
    assert [observation.case_id for observation in observed] == ["full", "again"]
    assert [(skip.case_id, skip.reason[:12]) for skip in failed] == [("long", "paraphrase 0")]
    assert observed == observe(tiny_gptj, [cases[0], cases[2]], [], [-1, -1])


def test_single_scores_each_case_with_its_own_edit(editor, cases):
    result = run(editor, cases)
    assert (result.failed, editor.calls) == ([], [3])
    before, _ = baseline(editor.model, cases)
    expected = []
    for case, old in zip(cases, before, strict=True):
        (new,) = observe(editor.model, [case], [editor.patch(case.request())], [0], roles=EDITED_ROLES)
        expected += [*score([case], [new], [old], EditedFacts.of([case])), ("edit.diverged", 0.0)]
    got = [each if each.metric != "edit.diverged" else (each.metric, each.value) for each in result.scores]
    assert [each if isinstance(each, tuple) else (each.case_id, each.metric) for each in got] == [
        each if isinstance(each, tuple) else (each.case_id, each.metric) for each in expected]
    assert [each.value for each in got if not isinstance(each, tuple)] == pytest.approx(
        [each.value for each in expected if not isinstance(each, tuple)], abs=1e-5)
    assert result.seconds_edit > 0 and result.seconds_score > 0
    assert result.memory_of == "process" and result.peak_memory > 100 * 2**20


def test_only_guilty_cases_fail(editor, cases):
    asked = [cases[0], with_target(cases[1], "case", "guilty"), too_long(cases[1], "long"), cases[1],
             with_target(cases[0], "crash", "crashed"), cases[2],
             cases[0].model_copy(update={"subject": "Nobody", "id": "unfound"})]
    result = run(editor, asked)
    assert {skip.case_id: skip.reason.split(":")[0] for skip in result.failed} == {
        "guilty": "no such subject", "crashed": "RuntimeError", "long": "paraphrase 0",
        "unfound": "subject 'Nobody' is not in prompt 'The birthplace of Art Budrer is'"}
    scored = list(dict.fromkeys(each.case_id for each in result.scores))
    assert scored == ["full", "bare", "again"]
    alone = run(Scripted(editor.model), cases)
    assert [(each.case_id, each.metric) for each in result.scores] == [
        (each.case_id, each.metric) for each in alone.scores]
    assert [each.value for each in result.scores] == pytest.approx([each.value for each in alone.scores], abs=1e-5)


def test_an_editor_that_fails_everywhere_is_broken(editor, cases):
    crashing = [with_target(case, "crash", str(number)) for number, case in enumerate(cases)]
    with pytest.raises(RuntimeError, match="singular"):
        run(editor, crashing)
    unusable = [with_target(case, "case", str(number)) for number, case in enumerate(cases)]
    result = run(editor, unusable)
    assert (len(result.failed), result.scores) == (3, [])


def test_no_case_left_to_edit(editor, cases):
    result = run(editor, [too_long(case, str(number)) for number, case in enumerate(cases)])
    assert ([skip.case_id for skip in result.failed], result.scores, editor.calls) == (["0", "1", "2"], [], [])


def test_wrong_input_stops_at_once(editor, cases):
    with pytest.raises(InputError, match="statistics are missing"):
        run(editor, [cases[0], with_target(cases[1], "user", "u")])
    assert editor.calls == [2]


def test_a_diverged_edit_is_scored_and_says_so(editor, cases):
    result = run(editor, [with_target(cases[0], "nan", "diverged"), cases[2]])
    assert result.failed == []
    diverged = {each.case_id: each.value for each in result.scores if each.metric == "edit.diverged"}
    assert diverged == {"diverged": 1.0, "again": 0.0}
    others = {each.value for each in result.scores if each.case_id == "diverged" and each.metric != "edit.diverged"}
    assert others == {0.0}


def test_no_edit_reuses_the_baseline(tiny_gptj, cases, monkeypatch):
    before, _ = baseline(tiny_gptj, cases)
    asked = []
    monkeypatch.setattr(protocols, "observe", lambda model, cases, *_, **__: asked.append(list(cases)) or [])
    result = single(Identity(tiny_gptj, EditorConfig()), cases, before)
    assert asked == [[]]
    locality = [each.value for each in result.scores if each.metric in ("locality.token", "locality.attributes.exact")]
    assert locality == [1.0, 1.0]


def test_cases_share_subjects_but_not_edits(editor, cases):
    """Another case's edit of the same subject neither changes a case's scores nor its locality probes."""
    def scores(result):
        return {each.metric: each.value for each in result.scores if each.case_id == "full"}

    alone, together = scores(run(editor, [cases[0]])), scores(run(editor, cases))
    assert together == pytest.approx(alone, abs=1e-5)
    assert "locality.attributes.token" in together


def test_a_baseline_that_lacks_a_sound_case_is_a_mistake(editor, cases):
    before, _ = baseline(editor.model, cases[:2])
    with pytest.raises(ValueError, match="lacks case 'again'"):
        single(editor, cases, before)
