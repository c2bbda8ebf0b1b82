"""Every editor against every other: the numbers of one comparison after another, and Holm's correction."""

import math

import pyarrow.compute as pc
import pytest
from support.report_rows import rows

from evaluators.report.compare import compare
from evaluators.report.pairwise import MOST, Pair, corrected, pairwise
from evaluators.report.samples import Setting

METRICS = ("reliability.token", "generality.exact")


def test_numbers_are_those_of_one_comparison_after_another():
    table = rows(9)
    gone = pc.and_(pc.equal(table["editor"], "ft"), pc.equal(table["case_id"], "case-004"))
    table = table.filter(pc.invert(gone))  # so that subjects are not the same everywhere
    found = {(each.setting, each.metric, each.editor, each.versus): each for each in pairwise(table, METRICS)}
    assert len(found) == 3 * 2 * 6
    for versus in ("identity", "ft", "mend"):
        for row in compare(table, versus).comparisons:
            key = (Setting(row.model, row.dataset, row.protocol, row.edits), row.metric, row.editor, versus)
            if key in found:
                each = found.pop(key)
                assert (each.difference, each.low, each.high, each.n, each.p) == pytest.approx(
                    (row.difference, row.low, row.high, row.n, row.p), abs=1e-12)
    assert not found


def pair(p, metric="m", editor="a"):
    return Pair(Setting("m", "d", "single", 1), metric, editor, "b", 0.1, 0.0, 0.2, 10, p)


def test_p_values_are_corrected_in_each_family_by_itself():
    """Holm's p': sorted 0.01, 0.02, 0.04, 0.4 of four times 4, 3, 2, 1, never falling, at most 1."""
    found = corrected([pair(0.04), pair(0.01), pair(0.4), pair(0.02), pair(0.03, metric="alone")])
    assert [each.adjusted for each in found] == pytest.approx([0.08, 0.04, 0.4, 0.06, 0.03])
    assert [each.adjusted for each in corrected([pair(0.02), pair(0.03), pair(0.9)])] == pytest.approx(
        [0.06, 0.06, 0.9])
    no_number = corrected([pair(math.nan), pair(0.5)])
    assert math.isnan(no_number[0].adjusted) and no_number[1].adjusted == 0.5


def test_of_very_many_editors_each_is_compared_with_the_unedited_model_alone():
    many = {"identity": 0.1, **{f"e{number:02}": 0.5 for number in range(MOST)}}
    found = pairwise(rows(3, editors=many, protocols=(("single", 1),)), METRICS[:1])
    assert {each.versus for each in found} == {"identity"} and len(found) == MOST


def test_there_may_be_nothing_to_compare():
    assert pairwise(rows(0), METRICS) == [] and pairwise(rows(2), ["nothing"]) == []
