"""What editors as they come do to both built-in models: what their methods promise, and what they are known for."""

import pytest
from support.behaviour import bench_of


@pytest.fixture(params=["testbed-gptj", "testbed-t5"])
def bench(request):
    return bench_of(request.param)


def test_t_patcher_edits_it(bench):
    scores = bench.score("t-patcher", 30)
    assert scores["reliability.exact"] >= 0.95
    assert scores["generality.exact"] >= 0.9
    assert scores["locality.exact"] >= 0.9 and scores["locality.attributes.exact"] >= 0.85


def test_calinet_learns_the_edit(bench):
    scores = bench.score("calinet", 20)
    assert scores["reliability.exact"] >= 0.95 and scores["generality.exact"] >= 0.9
    assert scores["locality.exact"] >= 0.65 and scores["locality.unrelated.exact"] >= 0.95


def test_kn_makes_some_edits(bench):
    """As many as its own rule allows where input embeddings and head are different matrices."""
    scores = bench.score("kn", 20)
    assert scores["reliability.exact"] >= 0.15 and scores["generality.exact"] >= 0.15
    assert scores["locality.exact"] >= 0.2 and scores["locality.unrelated.exact"] >= 0.7


def test_serac_answers_what_lies_in_scope_and_nothing_else(bench):
    scores = bench.score("serac", 60)
    assert scores["reliability.exact"] >= 0.95 and scores["generality.exact"] >= 0.95
    assert scores["locality.exact"] >= 0.95 and scores["locality.attributes.exact"] >= 0.95
    assert scores["portability.exact"] <= 0.1  # what follows from an edit is out of its scope


@pytest.mark.parametrize(("name", "reliability"), [("mend", 0.8), ("ke", 0.6)])
def test_hypernetworks_edit_it(bench, name, reliability):
    scores = bench.score(name, 60)
    assert scores["reliability.exact"] >= reliability and scores["generality.exact"] >= reliability - 0.05
    assert scores["locality.exact"] >= 0.7 and scores["locality.unrelated.exact"] >= 0.95
