"""What a search goes by, against plain means; and its verdict, against differences of plain means."""

from __future__ import annotations

import random
from statistics import fmean, harmonic_mean

import pyarrow as pa
import pytest

from editors.core.errors import InputError
from evaluators.report.objective import Objective

METRICS = ("reliability.exact", "generality.exact", "locality.exact")


def rows(editor, shift=0.0, cases=40, **changes):
    rng = random.Random(0)
    where = {"editor": editor, "model": "m", "dataset": "d", "protocol": "single", "edits": 1, **changes}
    return [{**where, "metric": metric, "value": min(1.0, rng.random() + shift), "case_id": f"c{case}",
             "subject": f"s{case}", "task": "t", "settings": editor, "seed": 0, "order": 0}
            for case in range(cases) for metric in METRICS]


def means(found):
    return [fmean(row["value"] for row in found if row["metric"] == metric) for metric in METRICS]


def test_the_score_of_several_metrics_is_their_harmonic_mean_over_all_settings():
    found, others = rows("ft"), rows("ft", 0.2, dataset="e")
    expected = fmean(harmonic_mean(means(part)) for part in (found, others))
    assert Objective(METRICS).score(pa.Table.from_pylist([*found, *others])) == pytest.approx(expected, abs=1e-12)
    assert Objective(METRICS[1:2]).score(pa.Table.from_pylist(found)) == pytest.approx(means(found)[1])


def test_counterfacts_score_is_an_objective():
    found = [{**row, "metric": row["metric"].replace(".exact", ".success")} for row in rows("ft")]
    expected = harmonic_mean(means(rows("ft")))
    assert Objective(("score.success",)).score(pa.Table.from_pylist(found)) == pytest.approx(expected)


@pytest.mark.parametrize(("found", "told"), [
    ([], "no case was scored"), (rows("ft")[::3], "d, single: no case has 'generality.exact'"),
    ([*rows("ft"), {**rows("ft")[0], "metric": "edit.diverged", "value": 1.0}], "every edit diverged"),
    ([{**row, "value": float("nan")} for row in rows("ft")], "is nan")])
def test_what_has_no_score(found, told):
    with pytest.raises(InputError, match=told):
        Objective(METRICS).score(pa.Table.from_pylist(found, schema=pa.Table.from_pylist(rows("x")).schema))


def test_the_verdict_is_on_the_cases_that_both_have():
    preset, better = rows("ft", cases=30), rows("ft (found)", 0.3)
    table = pa.Table.from_pylist([*preset, *better, *rows("rome")])
    objective = Objective(METRICS)
    [verdict] = objective.compare(table, "ft (found)", "ft")
    same = [row for row in better if int(row["case_id"][1:]) < 30]
    assert (verdict.preset, verdict.found) == pytest.approx(tuple(harmonic_mean(means(part))
                                                                  for part in (preset, same)))
    assert verdict.difference == pytest.approx(verdict.found - verdict.preset) and verdict.n == 30
    assert 0 < verdict.low < verdict.difference < verdict.high and verdict.p < 0.01
    told = objective.sentence(verdict, "ft (found)", "ft")
    assert "ft (found) beats ft" in told and f"{100 * verdict.difference:+.1f} (95 %" in told
    [back] = objective.compare(table, "ft", "ft (found)")
    assert "ft is worse than ft (found)" in objective.sentence(back, "ft", "ft (found)")


def test_a_difference_whose_interval_holds_0_is_none():
    turned = [{**row, "value": other["value"]} for row, other in zip(rows("b"), rows("b")[::-1], strict=True)]
    table = pa.Table.from_pylist([*rows("ft"), *turned])
    objective = Objective(METRICS[1:2])  # the middle one: the same values in another order
    [verdict] = objective.compare(table, "b", "ft")
    assert verdict.low < 0 < verdict.high and "b does not beat ft" in objective.sentence(verdict, "b", "ft")


def test_lower_can_be_better():
    objective = Objective(("edit.diverged",))
    table = pa.Table.from_pylist([{**row, "metric": "edit.diverged", "value": value} for editor, value in
                                  (("ft", 1.0), ("b", 0.0)) for row in rows(editor)[::3]])
    [verdict] = objective.compare(table, "b", "ft")
    assert objective.better == "lower" and "b beats ft" in objective.sentence(verdict, "b", "ft")


@pytest.mark.parametrize(("names", "told"), [
    (("reliability",), "unknown metric"), (("reliability.exact", "reliability.exact"), "listed twice"),
    (("reliability.exact", "edit.diverged"), "'edit.diverged' is no such metric"),
    (("reliability.exact", "score.success"), "'score.success' is no such metric")])
def test_what_is_no_objective(names, told):
    with pytest.raises(InputError, match=told):
        Objective(names)
