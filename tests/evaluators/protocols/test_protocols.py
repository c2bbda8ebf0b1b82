import copy
import math

import pytest
from support.protocols import batch, single
from support.scripted import Joint, Scripted, expected_of, run, too_long, values, with_target

from editors.core.editor import EditorConfig
from editors.core.errors import InputError
from editors.core.memory import Needs
from editors.core.patches.patch import Patch
from editors.identity import Identity
from evaluators.cases import EditedFacts
from evaluators.protocols.single import PATCHES
from evaluators.scoring import judge as judging
from evaluators.scoring.judge import baseline
from evaluators.scoring.measures import NOTHING_MORE
from evaluators.scoring.metrics import score
from evaluators.scoring.observe import observe


@pytest.fixture
def editor(tiny_gptj):
    return Scripted(tiny_gptj)


@pytest.fixture
def joint(tiny_gptj):
    return Joint(tiny_gptj)


def test_baseline_records_cases_that_cannot_be_encoded(tiny_gptj, cases):
    observed, failed = baseline(tiny_gptj, [cases[0], too_long(cases[1], "long"), cases[2]])
    assert [observation.case_id for observation in observed] == ["full", "again"]
    assert [(skip.case_id, skip.reason[:12]) for skip in failed] == [("long", "paraphrase 0")]
    assert observed == observe(tiny_gptj, [cases[0], cases[2]], [], [-1, -1])


def test_a_model_that_is_not_finite_has_no_baseline(tiny_gptj, cases):
    broken = copy.copy(tiny_gptj)
    broken.module = copy.deepcopy(tiny_gptj.module)
    broken.module.lm_head.bias.data[0] = math.nan
    with pytest.raises(InputError, match=r"'tiny-gptj' has outputs that are not finite in float32, .* 'full'"):
        baseline(broken, cases)


def test_single_scores_each_case_with_its_own_edit(editor, cases):
    result = run(editor, cases)
    assert (result.failed, editor.calls) == ([], [3])
    before, _ = baseline(editor.model, cases)
    expected = []
    for case, old in zip(cases, before, strict=True):
        (new,) = observe(editor.model, [case], [editor.patch(case.request())], [0], roles=NOTHING_MORE.edited_roles)
        expected += [*score([case], [new], [old], EditedFacts.of([case])), ("edit.diverged", 0.0)]
    got = [each if each.metric != "edit.diverged" else (each.metric, each.value) for each in result.scores]
    assert [each if isinstance(each, tuple) else (each.case_id, each.metric) for each in got] == [
        each if isinstance(each, tuple) else (each.case_id, each.metric) for each in expected]
    assert [each.value for each in got if not isinstance(each, tuple)] == pytest.approx(
        [each.value for each in expected if not isinstance(each, tuple)], abs=1e-5)
    assert result.costs.keys() == {"edit", "score"} and min(spent.seconds for spent in result.costs.values()) > 0
    assert result.costs["score"].memory.rss > 100 * 2**20


def test_large_patches_are_scored_before_the_next_are_made(editor, cases, monkeypatch):
    monkeypatch.setattr(editor.model.weights, "free", lambda device: 1e15)

    class Large(Scripted):
        @classmethod
        def needs(cls, config, of, facts=1):
            return Needs(each=PATCHES // 2)

    large = Large(editor.model)
    results = [run(each, cases) for each in (large, editor)]
    assert (large.calls, editor.calls) == ([2, 1], [3])
    assert [(each.case_id, each.metric) for each in results[0].scores] == [
        (each.case_id, each.metric) for each in results[1].scores]
    assert [each.value for each in results[0].scores] == pytest.approx([each.value for each in results[1].scores],
                                                                       abs=1e-5)


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
    monkeypatch.setattr(judging, "observe", lambda model, cases, *_, **__: asked.append(list(cases)) or [])
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


def in_batches(editor, cases, size):
    before, _ = baseline(editor.model, cases)
    return batch(editor, cases, before, size)


def test_a_batch_is_one_edit_and_all_its_cases_are_scored_on_it(joint, cases):
    result = in_batches(joint, cases, 2)
    assert joint.calls == [["full", "bare"], ["again"]] and result.failed == []
    expected = {}
    for part in (cases[:2], cases[2:]):
        patch = sum((joint.patch(case.request()) for case in part), Patch())
        expected |= expected_of(joint, part, patch, EditedFacts.of(part))
    assert values(result) == pytest.approx(expected, abs=1e-5)
    assert result.costs["edit"].seconds > 0 and result.costs["score"].seconds > 0


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
