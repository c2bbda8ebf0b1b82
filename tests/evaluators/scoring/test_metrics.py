import math
from dataclasses import replace

import pytest

from evaluators.cases import Case, Chain, EditedFacts, Probe
from evaluators.scoring.metrics import KNOWN_RANK, score
from evaluators.scoring.observe import NO_TOKEN, Observation, Outputs, ProbeKey

NOTHING = EditedFacts.of([])


def outputs(predicted, target, logprob=-1.0, rank=0):
    return Outputs(tuple(predicted), tuple(target), logprob, rank)


def observation(entries):
    return Observation("c", {ProbeKey(*key): value for key, value in entries.items()})


def values(case, after, before=None, edits=NOTHING):
    scores = score([case], [observation(after)], [observation(before or after)], edits)
    assert {(each.case_id, each.subject) for each in scores} == {("c", "Ann")}
    return {each.metric: each.value for each in scores}


def a_case(**fields):
    return Case(id="c", subject="Ann", prompt="Ann speaks", target_new="Dutch", relation="tongue", **fields)


REWRITE = {("rewrite", 0, "answer"): outputs([1, 2], [1, 2])}


def test_reliability():
    got = values(a_case(), {("rewrite", 0, "answer"): outputs([1, 2, 9, 4], [1, 2, 3, 4], logprob=-2.0),
                            ("rewrite", 0, "rival"): outputs([1, 2], [7, 8], logprob=-6.0)})
    assert got == {"reliability.token": 0.75, "reliability.exact": 0.0, "reliability.success": 1.0,
                   "reliability.magnitude": pytest.approx(math.exp(-0.5) - math.exp(-3))}


def test_success_is_by_mean_log_probability_and_strict():
    def success(new, true):
        return values(a_case(), {("rewrite", 0, "answer"): new, ("rewrite", 0, "rival"): true})["reliability.success"]

    assert success(outputs([1, 2], [1, 2], -3.0), outputs([1], [3], -2.0)) == 1  # -1.5 a token against -2
    assert success(outputs([1], [1], -2.0), outputs([1, 2], [3, 4], -3.0)) == 0
    assert success(outputs([1], [1], -2.0), outputs([1, 2], [3, 4], -4.0)) == 0  # a tie is no success


def test_generality_is_the_mean_over_paraphrases():
    got = values(a_case(paraphrases=("a", "b")), REWRITE | {
        ("paraphrase", 0, "answer"): outputs([1, 2], [1, 2], logprob=-1.0),
        ("paraphrase", 0, "rival"): outputs([1], [5], logprob=-2.0),
        ("paraphrase", 1, "answer"): outputs([1, 3], [1, 2], logprob=-4.0),
        ("paraphrase", 1, "rival"): outputs([1], [5], logprob=-1.0)})
    assert (got["generality.token"], got["generality.exact"], got["generality.success"]) == (0.75, 0.5, 0.5)
    assert got["generality.magnitude"] == pytest.approx(
        (math.exp(-0.5) - math.exp(-2) + math.exp(-2) - math.exp(-1)) / 2)


def test_locality_compares_with_the_unedited_predictions():
    case = a_case(neighbourhood=(Probe(prompt="Bo speaks", target="x"), Probe(prompt="Cy speaks", target="x")),
                  attributes=(Probe(prompt="Ann plays", target="x"),), unrelated=(Probe(prompt="Rain", target="x"),))
    before = REWRITE | {("neighbourhood", 0, "answer"): outputs([1, 2], [1, 2]),
                        ("neighbourhood", 1, "answer"): outputs([8, 9], [1, 2]),
                        ("attributes", 0, "answer"): outputs([4, 5, 6, 7], [4, 5, 6, 7]),
                        ("unrelated", 0, "answer"): outputs([3], [4])}
    after = REWRITE | {("neighbourhood", 0, "answer"): outputs([1, 5], [1, 2], logprob=-2.0),
                       ("neighbourhood", 0, "rival"): outputs([1], [7], logprob=-3.0),
                       ("neighbourhood", 1, "answer"): outputs([8, 9], [1, 2], logprob=-2.0),
                       ("neighbourhood", 1, "rival"): outputs([8], [7], logprob=-0.5),
                       ("attributes", 0, "answer"): outputs([4, 0, 6, 7], [4, 5, 6, 7]),
                       ("unrelated", 0, "answer"): outputs([3], [4])}
    got = values(case, after, before)
    assert (got["locality.token"], got["locality.exact"], got["locality.success"]) == (0.75, 0.5, 0.5)
    assert got["locality.magnitude"] == pytest.approx(
        (math.exp(-1) - math.exp(-3) + math.exp(-1) - math.exp(-0.5)) / 2)
    assert (got["locality.attributes.token"], got["locality.attributes.exact"]) == (0.75, 0)
    assert (got["locality.unrelated.token"], got["locality.unrelated.exact"]) == (1, 1)
    assert not any(name.startswith(("generality", "portability")) for name in got)


def test_portability_counts_only_links_that_the_unedited_model_knows():
    def chain(linked):
        return Chain(prompt="Where?", target="x", link=Probe(prompt="Dutch in", target="x") if linked else None)

    case = a_case(portability=(chain(True), chain(True), chain(False)))
    after = REWRITE | {("portability", 0, "answer"): outputs([1], [1]), ("portability", 1, "answer"): outputs([2], [1]),
                       ("portability", 2, "answer"): outputs([3, 1], [1, 1])}

    def known(*ranks):
        links = {("link", number, "answer"): outputs([1], [1], rank=rank) for number, rank in enumerate(ranks)}
        return values(case, after, after | links)

    everything = {"portability.all.token": 0.5, "portability.all.exact": pytest.approx(1 / 3)}
    assert known(0, KNOWN_RANK).items() >= ({"portability.token": 1, "portability.exact": 1} | everything).items()
    assert known(KNOWN_RANK, 9)["portability.token"] == 0
    assert known(9, 9)["portability.token"] == 0.5
    unknown = known(10, 11)
    assert "portability.token" not in unknown and unknown.items() >= everything.items()


def test_facts_that_were_edited_are_left_out_of_locality():
    edited = [a_case(), a_case().model_copy(update={"subject": "C.Y", "prompt": "The tongue of C.Y is"}),
              Case(id="e", subject="Eve", prompt="Who is Eve?", target_new="Lee")]
    edits = EditedFacts.of(edited)
    covered = [Probe(prompt="anything", target="x", subject="Ann", relation="tongue"),
               Probe(prompt="Who is Eve?", target="x"),
               Probe(prompt="Is it C.Y, who speaks", target="x", relation="tongue")]
    free = [Probe(prompt="anything", target="x", subject="Ann", relation="sport"),
            Probe(prompt="Ann Lee speaks", target="x", subject="Ann Lee", relation="tongue"),
            Probe(prompt="JoAnn speaks", target="x", relation="tongue"),
            Probe(prompt="CXY speaks", target="x", relation="tongue"),
            Probe(prompt="Ann plays", target="x", relation="sport"),
            Probe(prompt="Ann sings", target="x"),
            Probe(prompt="Eve is", target="x", subject="Eve")]
    assert [edits.cover(probe) for probe in covered] == [True] * 3
    assert [edits.cover(probe) for probe in free] == [False] * len(free)
    assert not any(NOTHING.cover(probe) for probe in covered)

    case = a_case(neighbourhood=(covered[0], free[0]), attributes=(covered[1],))
    asked = [("neighbourhood", 0, "answer"), ("neighbourhood", 0, "rival"), ("neighbourhood", 1, "answer"),
             ("attributes", 0, "answer")]
    after = REWRITE | dict.fromkeys(asked, outputs([1], [1]))
    before = after | {("neighbourhood", 1, "answer"): outputs([2], [1])}
    got = values(case, after, before, edits)
    assert got["locality.token"] == 0  # the edited neighbour would have scored 1
    assert "locality.success" not in got and "locality.attributes.token" not in got
    assert values(case, after, before)["locality.token"] == 0.5


def test_outputs_that_are_not_finite_count_as_wrong():
    broken = outputs([NO_TOKEN], [1], -math.inf, 100)
    sound = outputs([1], [1])
    case = a_case(paraphrases=("a",), neighbourhood=(Probe(prompt="b", target="x"),),
                  portability=(Chain(prompt="c", target="x", link=Probe(prompt="d", target="x")),))
    keys = [("rewrite", 0, "answer"), ("rewrite", 0, "rival"), ("paraphrase", 0, "answer"), ("paraphrase", 0, "rival"),
            ("neighbourhood", 0, "answer"), ("neighbourhood", 0, "rival"), ("portability", 0, "answer")]
    got = values(case, dict.fromkeys(keys, broken), dict.fromkeys([*keys, ("link", 0, "answer")], sound))
    assert set(got.values()) == {0.0} and len(got) == 16
    both = values(case, dict.fromkeys(keys, broken))
    assert both["locality.token"] == both["locality.exact"] == 0  # broken before and after is no agreement
    one = values(a_case(), {keys[0]: sound, keys[1]: broken})
    assert (one["reliability.success"], one["reliability.magnitude"]) == (0, 0)


def test_scores_keep_the_order_of_cases_and_metrics():
    cases = [a_case().model_copy(update={"id": name}) for name in ("b", "a")]
    observed = [Observation(case.id, {ProbeKey(*key): value for key, value in REWRITE.items()}) for case in cases]
    scores = score(cases, observed, observed, NOTHING)
    assert [(each.case_id, each.metric) for each in scores] == [
        (name, metric) for name in ("b", "a") for metric in ("reliability.token", "reliability.exact")]


def test_observations_of_another_case_are_refused():
    other = Observation("d", {ProbeKey(*key): value for key, value in REWRITE.items()})
    with pytest.raises(ValueError, match="'d'"):
        score([a_case()], [other], [observation(REWRITE)], NOTHING)
    with pytest.raises(ValueError):
        score([a_case()], [], [], NOTHING)


def test_kinds_of_portability_are_told_apart():
    case = a_case(portability=(Chain(prompt="Who?", target="Ann", kind="inverse"),
                               Chain(prompt="And she?", target="Dutch", kind="subject"),
                               Chain(prompt="So?", target="x")))
    got = values(case, REWRITE | {("portability", 0, "answer"): outputs([1], [1]),
                                  ("portability", 1, "answer"): outputs([1, 2], [1, 3]),
                                  ("portability", 2, "answer"): outputs([1], [2])})
    found = {name: value for name, value in got.items() if name.startswith("portability")}
    assert found == {"portability.inverse.token": 1, "portability.inverse.exact": 1, "portability.subject.token": 0.5,
                     "portability.subject.exact": 0, "portability.all.token": 0, "portability.all.exact": 0}


def test_free_answers_are_compared_as_text_and_kept():
    case = a_case(paraphrases=("a", "b"), neighbourhood=(Probe(prompt="Bo speaks", target="x"),
                                                         Probe(prompt="Cy speaks", target="x")))
    after = {("rewrite", 0, "answer"): replace(outputs([1], [1]), text="the Dutch"),
             ("paraphrase", 0, "answer"): replace(outputs([1], [1]), text="Dutch"),
             ("paraphrase", 1, "answer"): replace(outputs([1], [1]), text="Dutch or so"),
             ("neighbourhood", 0, "answer"): replace(outputs([1], [1]), text="French!"),
             ("neighbourhood", 1, "answer"): replace(outputs([1], [1]), text="Dutch")}
    before = {**after, ("neighbourhood", 0, "answer"): replace(outputs([1], [1]), text="french"),
              ("neighbourhood", 1, "answer"): replace(outputs([1], [1]), text="Welsh")}
    scores = {each.metric: each for each in score([case], [observation(after)], [observation(before)], NOTHING)}
    assert {name: (scores[name].value, scores[name].texts) for name in scores if name.endswith("generation")} == {
        "reliability.generation": (1, ("the Dutch",)), "generality.generation": (0.5, ("Dutch", "Dutch or so")),
        "locality.generation": (0.5, ("French!", "Dutch"))}


def test_divergence_and_distraction_belong_to_locality():
    case = a_case(neighbourhood=(Probe(prompt="Bo speaks", target="x", subject="Bo", relation="tongue"),))
    probes = {("neighbourhood", 0, "answer"): replace(outputs([1], [1]), kl=0.25),
              ("distracting", 0, "answer"): replace(outputs([2], [1]), kl=0.5)}
    before = REWRITE | {("neighbourhood", 0, "answer"): outputs([1], [1]),
                        ("distracting", 0, "answer"): outputs([1], [1])}
    got = values(case, REWRITE | probes, before)
    assert (got["locality.kl"], got["locality.distracting.kl"], got["locality.distracting.exact"]) == (0.25, 0.5, 0)
    edited = values(case, REWRITE | probes, before, EditedFacts(frozenset({("Bo", "tongue")}), frozenset()))
    assert not any(name.startswith("locality") for name in edited)
