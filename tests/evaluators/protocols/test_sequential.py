import pytest
import torch
from support.protocols import sequential
from support.scripted import Joint, Scripted, expected_of, run, too_long, values, with_target

from editors.core.editor import EditorConfig
from editors.core.errors import InputError
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import LowRank, Patch
from editors.identity import Identity
from evaluators.cases import EditedFacts
from evaluators.protocols.stream import Stream, extend, judge_stream
from evaluators.scoring.judge import baseline


@pytest.fixture
def editor(tiny_gptj):
    return Scripted(tiny_gptj)


@pytest.fixture
def joint(tiny_gptj):
    return Joint(tiny_gptj)


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


def newest_of(editor, cases, since):
    """What the edits from number `since` on score right after they were made, each by a stream that ends there."""
    found = {}
    for end in range(since, len(cases)):
        scores = expected_of(editor, [cases[end]], plain_stream(editor, cases[: end + 1]), EditedFacts.of([]))
        found |= {(name, f"newest.{metric}"): value for (name, metric), value in scores.items()
                  if metric.startswith(("reliability", "generality"))}
    return found


def test_a_stream_edits_what_the_edits_before_left(watchful, cases):
    before, _ = baseline(watchful.model, cases)
    results = dict(sequential(watchful, cases, before, [3, 1]))
    assert watchful.calls == [["full"], ["bare"], ["again"]] and list(results) == [1, 3]
    for length, since in ((1, 0), (3, 1)):
        done, result = cases[:length], results[length]
        expected = expected_of(watchful, done, plain_stream(watchful, done), EditedFacts.of(done))
        expected |= newest_of(watchful, done, since)
        assert result.failed == [] and values(result) == pytest.approx(expected, abs=1e-4)
    assert ("full", "locality.attributes.token") in values(results[1])
    assert ("full", "locality.attributes.token") not in values(results[3])
    assert results[3].costs["score"].seconds > 0
    alone = values(run(watchful, cases))
    first = {key: value for key, value in values(results[1]).items() if not key[1].startswith("newest")}
    assert first == pytest.approx({key: alone[key] for key in alone if key[0] == "full"}, abs=1e-5)


def test_a_stream_may_take_several_edits_a_step(joint, cases):
    before, _ = baseline(joint.model, cases)
    ((_, result),) = sequential(joint, cases, before, [3], step=2)
    assert joint.calls == [["full", "bare"], 1]
    patch = sum((joint.patch(case.request()) for case in cases), Patch())
    expected = expected_of(joint, cases, patch, EditedFacts.of(cases))
    found = values(result)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-4)
    assert {name for name, metric in found if metric == "newest.reliability.exact"} == {"full", "bare", "again"}


def test_a_step_goes_on_without_its_guilty_cases(joint, cases):
    asked = [cases[0], with_target(cases[1], "crash", "guilty"), cases[2]]
    stream = extend(joint, asked, Stream(), step=3)
    assert [(skip.case_id, skip.reason) for skip in stream.failed] == [("guilty", "RuntimeError: singular matrix")]
    assert stream.facts == EditedFacts.of([cases[0], cases[2]]) and set(stream.newest) == {"full", "again"}


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
    assert part.newest == {"again": whole.newest["again"]} and set(whole.newest) == {"full", "bare", "again"}
    assert whole.seconds > 0 == part.seconds  # which would make other bytes of the same edits


def test_an_empty_stream_can_be_kept(tiny_gptj, cases, tmp_path):
    stream = extend(Identity(tiny_gptj, EditorConfig()), cases, Stream())
    stream.save(tmp_path / "stream")
    before, _ = baseline(tiny_gptj, cases)
    kept = Stream.load(tmp_path / "stream")
    assert not kept.patch and kept.facts == EditedFacts.of(cases)
    scored, scored_again = (values(judge_stream(tiny_gptj, cases, each, before)) for each in (stream, kept))
    assert scored == scored_again


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
    _, (_, alone) = sequential(editor, sound, before, [1, 2])
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
