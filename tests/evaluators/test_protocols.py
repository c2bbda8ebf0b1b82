import math

import pytest
import torch

from editors.base import Editor, EditorConfig
from editors.core.errors import CaseError, InputError
from editors.core.overlay import overlay
from editors.core.patch import LowRank, Patch
from editors.identity import Identity
from evaluators import protocols
from evaluators.metrics import EditedFacts, score
from evaluators.protocols import EDITED_ROLES, Stream, baseline, batch, extend, judge, sequential, single
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


# --- batches


class Joint(Scripted):
    """Joins its requests' patches; too many at once are too much for it."""

    joint = True
    most = 100

    def edit(self, requests):
        self.calls.append([request.id for request in requests])
        if len(requests) > self.most:
            raise RuntimeError("singular together")
        return sum((self.patch(request) for request in requests), Patch())


@pytest.fixture
def joint(tiny_gptj):
    return Joint(tiny_gptj)


def values(result):
    return {(each.case_id, each.metric): each.value for each in result.scores}


def in_batches(editor, cases, size):
    before, _ = baseline(editor.model, cases)
    return batch(editor, cases, before, size)


def expected_of(editor, cases, patch, facts):
    """Scores by a plain loop: one case at a time under the patch of all."""
    before, _ = baseline(editor.model, cases)
    found = {}
    for case, old in zip(cases, before, strict=True):
        (new,) = observe(editor.model, [case], [patch], [0], roles=EDITED_ROLES)
        found |= {(each.case_id, each.metric): each.value for each in score([case], [new], [old], facts)}
        found[case.id, "edit.diverged"] = 0.0
    return found


def test_a_batch_is_one_edit_and_all_its_cases_are_scored_on_it(joint, cases):
    result = in_batches(joint, cases, 2)
    assert joint.calls == [["full", "bare"], ["again"]] and result.failed == []
    expected = {}
    for part in (cases[:2], cases[2:]):
        patch = sum((joint.patch(case.request()) for case in part), Patch())
        expected |= expected_of(joint, part, patch, EditedFacts.of(part))
    assert values(result) == pytest.approx(expected, abs=1e-5)
    assert result.seconds_edit > 0 and result.seconds_score > 0


def test_facts_edited_in_the_same_batch_are_no_matter_of_locality(joint, cases):
    """`again` edits the very fact that is an attribute probe of `full`."""
    together, apart = (values(in_batches(joint, [cases[0], cases[2]], size)) for size in (2, 1))
    assert ("full", "locality.attributes.token") in apart
    assert ("full", "locality.attributes.token") not in together
    assert ("full", "locality.token") in together


def test_batches_of_one_are_single_edits(joint, cases):
    assert values(in_batches(joint, cases, 1)) == pytest.approx(values(run(joint, cases)), abs=1e-5)


def test_a_batch_is_edited_without_its_guilty_cases(joint, cases):
    asked = [cases[0], with_target(cases[1], "case", "guilty"), too_long(cases[1], "long"), cases[2]]
    result = in_batches(joint, asked, 4)
    assert {skip.case_id for skip in result.failed} == {"guilty", "long"}
    assert joint.calls[-1] == ["full", "again"]
    assert values(result) == pytest.approx(values(in_batches(joint, [cases[0], cases[2]], 2)), abs=1e-5)


def test_a_batch_that_fails_as_a_whole_is_the_editors_fault(joint, cases):
    joint.most = 2
    with pytest.raises(RuntimeError, match="singular together"):
        in_batches(joint, cases, 3)
    crashing = [with_target(case, "crash", str(number)) for number, case in enumerate(cases)]
    with pytest.raises(RuntimeError, match="singular matrix"):
        in_batches(joint, crashing, 3)
    with pytest.raises(InputError, match="statistics are missing"):
        in_batches(joint, [cases[0], with_target(cases[1], "user", "u")], 2)


def test_a_batch_without_a_case_that_can_be_edited(joint, cases):
    result = in_batches(joint, [with_target(case, "case", str(number)) for number, case in enumerate(cases)], 3)
    assert (len(result.failed), result.scores) == (3, [])


def test_a_diverged_batch_says_so_for_all_its_cases(joint, cases):
    result = in_batches(joint, [with_target(cases[0], "nan", "diverged"), cases[2]], 2)
    assert {each.value for each in result.scores if each.metric == "edit.diverged"} == {1.0}


# --- streams


class Watchful(Scripted):
    """Its edits depend on the model as it stands: it reads an activation first."""

    def edit_each(self, requests):
        self.calls.append([request.id for request in requests])
        patches = []
        for request in requests:
            (term,) = self.patch(request).terms
            with torch.no_grad():
                seen = self.model.target_logits(self.model.collate([self.model.encode(request.prompt, "x")])).mean()
            patches.append(Patch((LowRank(term.module, term.a * (1 + seen), term.b),)))
        return patches


@pytest.fixture
def watchful(tiny_gptj):
    return Watchful(tiny_gptj)


def plain_stream(editor, cases):
    patch = Patch()
    for case in cases:
        with overlay(editor.model, patch):
            patch = patch + editor.edit_each([case.request()])[0]
    return patch


def test_a_stream_edits_what_the_edits_before_left(watchful, cases):
    before, _ = baseline(watchful.model, cases)
    results = dict(sequential(watchful, cases, before, [3, 1]))
    assert watchful.calls == [["full"], ["bare"], ["again"]] and list(results) == [1, 3]
    for length, result in results.items():
        done = cases[:length]
        expected = expected_of(watchful, done, plain_stream(watchful, done), EditedFacts.of(done))
        assert result.failed == [] and values(result) == pytest.approx(expected, abs=1e-4)
    assert ("full", "locality.attributes.token") in values(results[1])
    assert ("full", "locality.attributes.token") not in values(results[3])
    assert results[3].seconds_edit > results[1].seconds_edit > 0
    alone = values(run(watchful, cases))
    assert values(results[1]) == pytest.approx({key: alone[key] for key in alone if key[0] == "full"}, abs=1e-5)


def test_a_stream_in_segments_is_the_same_stream(watchful, cases, tmp_path):
    whole = extend(watchful, cases, Stream())
    part = Stream()
    for case in cases:
        extend(watchful, [case], part).save(tmp_path / "part")
        part = Stream.load(tmp_path / "part")
    assert len(whole.patch.terms) == 1
    for one, other in zip(whole.patch.terms, part.patch.terms, strict=True):
        assert torch.equal(one.a, other.a) and torch.equal(one.b, other.b)
    assert (part.facts, part.failed, part.patch.info) == (whole.facts, whole.failed, whole.patch.info)
    assert part.seconds > 0


def test_an_empty_stream_can_be_kept(tiny_gptj, cases, tmp_path):
    stream = extend(Identity(tiny_gptj, EditorConfig()), cases, Stream())
    stream.save(tmp_path / "stream")
    before, _ = baseline(tiny_gptj, cases)
    kept = Stream.load(tmp_path / "stream")
    assert not kept.patch and kept.facts == EditedFacts.of(cases)
    assert values(judge(tiny_gptj, cases, kept, before)) == values(judge(tiny_gptj, cases, stream, before))


def test_a_stream_goes_on_without_its_failed_cases(editor, cases, tmp_path):
    asked = [cases[0], with_target(cases[1], "case", "guilty"), too_long(cases[1], "long"),
             with_target(cases[2], "crash", "crashed"), cases[2]]
    before, _ = baseline(editor.model, asked)
    first, second = (result for _, result in sequential(editor, asked, before, [2, 5]))
    assert [skip.case_id for skip in first.failed] == ["guilty"]
    assert [skip.case_id for skip in second.failed] == ["guilty", "long", "crashed"]
    assert second.failed[-1].reason == "RuntimeError: singular matrix"
    sound = [cases[0], cases[2]]
    before, _ = baseline(editor.model, sound)
    ((_, alone),) = sequential(editor, sound, before, [2])
    assert values(second) == pytest.approx(values(alone), abs=1e-5)


def test_an_editor_that_fails_throughout_a_segment_is_broken(editor, cases):
    crashing = [with_target(case, "crash", str(number)) for number, case in enumerate(cases)]
    with pytest.raises(RuntimeError, match="singular"):
        extend(editor, crashing, Stream())
    assert len(extend(editor, crashing[:1], Stream()).failed) == 1
    with pytest.raises(InputError, match="statistics are missing"):
        extend(editor, [with_target(cases[0], "user", "u")], Stream())


def test_a_diverged_stream_stays_diverged(editor, cases):
    asked = [with_target(cases[1], "nan", "diverged"), cases[2]]
    before, _ = baseline(editor.model, asked)
    ((_, result),) = sequential(editor, asked, before, [2])
    found = values(result)
    assert found["diverged", "edit.diverged"] == found["again", "edit.diverged"] == 1
    assert found["again", "reliability.exact"] == 0
