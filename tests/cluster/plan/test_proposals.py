"""What a search tries next: the same after the same scores, within the spaces, and better where scores say so."""

from __future__ import annotations

import math
from typing import Annotated, Any

import pytest
from pydantic import Field, PositiveFloat, PositiveInt

from cluster.campaign.search import Range
from cluster.plan.proposals import Proposer, Space, number_kind
from editors.core.errors import InputError

pytest.importorskip("optuna", reason="needs optuna")

SPACES = {"lr": Space(Range(low=1e-5, high=1e-1, log=True), PositiveFloat),
          "steps": Space(Range(low=5, high=50), PositiveInt),
          "layers": Space([[1], [2], [2, 3], None, True, "all"], tuple[int, ...])}


def score(settings):
    """Best at a learning rate of 1e-3 and few steps; layers [2, 3] are of no use."""
    if settings["layers"] == [2, 3]:
        return None
    return -abs(math.log10(settings["lr"]) + 3) - settings["steps"] / 50


def run(batches, seed=0, better="higher", scored=score):
    proposer, tried = Proposer(SPACES, seed, better), []
    for count in batches:
        asked = proposer.ask(count)
        proposer.tell([scored(settings) for settings in asked])
        tried += asked
    return tried


def test_the_same_scores_make_the_same_proposals():
    assert run([4] * 5) == run([4] * 5) != run([4] * 5, seed=1)


def test_a_search_that_was_cut_short_goes_on_as_if_it_had_not_been():
    """The first batches do not depend on how many follow."""
    assert run([4] * 5)[:8] == run([4, 4])


def test_proposals_are_in_their_spaces_and_of_their_types():
    for settings in run([5] * 8):
        assert 1e-5 <= settings["lr"] <= 1e-1 and float(f"{settings['lr']:.4g}") == settings["lr"]
        assert type(settings["steps"]) is int and 5 <= settings["steps"] <= 50
        assert settings["layers"] in SPACES["layers"].values


def test_a_logarithmic_range_is_tried_at_all_orders_of_magnitude():
    small = [settings for settings in run([40]) if settings["lr"] < 1e-3]
    assert 8 <= len(small) <= 32  # of a range that is not, some 1 %


def test_later_proposals_score_better_in_the_direction_asked_for():
    def mean(tried):
        found = [value for settings in tried if (value := score(settings)) is not None]
        return sum(found) / len(found)

    tried = run([4] * 15)
    assert mean(tried[-20:]) > mean(tried[:10]) + 0.3
    lower = run([4] * 15, better="lower", scored=lambda settings: None if score(settings) is None else -score(settings))
    assert lower == tried


def test_what_fails_is_tried_less():
    tried = run([4] * 25)
    failed = [settings["layers"] == [2, 3] for settings in tried]
    assert sum(failed[:50]) >= sum(failed[50:])


@pytest.mark.parametrize(("annotation", "kind"), [
    (int, int), (float, float), (PositiveInt, int), (PositiveFloat | None, float), (int | float, float), (bool, None),
    (Annotated[int, Field(ge=1)] | None, int), (tuple[int, ...], None), (str, None), (Any, None), (int | str, None)])
def test_kinds_of_numbers(annotation, kind):
    assert number_kind(annotation) is kind


def test_ranges_that_do_not_fit():
    for values, annotation, told in ((Range(low=0, high=1), bool, "no number"),
                                     (Range(low=0.5, high=3), int, "0.5 is none"),
                                     ([[1], [1]], tuple[int, ...], "listed twice")):
        with pytest.raises(InputError, match=told):
            Space(values, annotation)
    assert Space(Range(low=1, high=3), int).ends == [1, 3] and Space([1, "a"], str).ends == [1, "a"]
