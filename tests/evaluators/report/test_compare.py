import io
import itertools
import json
import math
import random
import warnings
from dataclasses import replace

import pyarrow as pa
import pytest
from rich.console import Console

from editors.core.errors import InputError
from evaluators.report import compare as module
from evaluators.report.compare import Comparison
from evaluators.report.intervals import bootstrap
from evaluators.report.tables import corrected, to_json_lines, to_markdown, to_rich_tables

THREE = ("reliability.success", "generality.success", "locality.success")


def row(editor, metric, value, case, **changes):
    return {"editor": editor, "model": "m", "dataset": "d", "protocol": "single", "edits": 1, "metric": metric,
            "value": float(value), "case_id": case, "subject": case[0], "seed": 0, **changes}


def compare(rows, versus="identity"):
    return module.compare(pa.Table.from_pylist(rows), versus)


def random_rows(seed, editors=("identity", "ft", "rome"), metrics=THREE, cases=12):
    rng = random.Random(seed)
    return [row(editor, metric, rng.choice([0, 0.25, 0.5, 1]), f"{'abcdefg'[number % 7]}{number}")
            for editor in editors for metric in metrics for number in range(cases)]


def sign_flips(gaps):
    """The share of all choices of signs that bring a sum at least as far from 0."""
    sums = [abs(sum(map(math.prod, zip(signs, gaps, strict=True))))
            for signs in itertools.product((1, -1), repeat=len(gaps))]
    return sum(found > abs(sum(gaps)) - 1e-9 for found in sums) / len(sums)


def test_differences_intervals_and_p_values_against_plain_loops():
    rows = random_rows(0)
    values = {(each["editor"], each["metric"], each["case_id"]): each["value"] for each in rows}
    found, notes = compare(rows)
    assert notes == []
    assert [(each.editor, each.metric) for each in found] == [
        (editor, metric) for editor in ("ft", "rome") for metric in (*THREE, "score.success")]
    for each in found:
        if each.metric != "score.success":
            cases = sorted({case for _, _, case in values})
            gaps = [values[each.editor, each.metric, case] - values["identity", each.metric, case] for case in cases]
            subjects = [case[0] for case in cases]
            interval = bootstrap(gaps, subjects)
            assert (each.difference, each.low, each.high, each.n) == pytest.approx(interval)
            by_subject = [sum(gap for gap, subject in zip(gaps, subjects, strict=True) if subject == one)
                          for one in sorted(set(subjects))]
            assert each.p == pytest.approx(sign_flips(by_subject))
        assert each.versus == "identity" and each.low <= each.difference <= each.high and 0 < each.p <= 1


def test_the_harmonic_score_is_compared_too():
    rows = random_rows(1, editors=("identity", "ft"))
    (score,) = [each for each in compare(rows)[0] if each.metric == "score.success"]

    def mean(editor, metric):
        own = [each["value"] for each in rows if (each["editor"], each["metric"]) == (editor, metric)]
        return sum(own) / len(own)

    ours, theirs = (3 / sum(1 / mean(editor, metric) for metric in THREE) for editor in ("ft", "identity"))
    assert score.difference == pytest.approx(ours - theirs) and score.n == 12


def test_only_cases_that_both_have_are_compared_and_the_others_are_counted():
    rows = [row("identity", "reliability.exact", 0, case) for case in ("a", "b", "c")]
    rows += [row("ft", "reliability.exact", 1, case) for case in ("b", "c", "d", "e")]
    rows += [row("ft", "portability.exact", 1, "z")]  # a metric that only one has leaves nothing out
    found, notes = compare(rows)
    (one,) = found
    assert (one.difference, one.low, one.high, one.n) == (1, 1, 1, 2)
    assert notes == ["left out in model m, dataset d, protocol single, edits 1, as only one of 'ft' and 'identity' has "
                     "them: 3 cases"]


def test_pairs_are_of_one_case_seed_and_order():
    """Means over all values differ by nothing; paired ones by 1."""
    keys = list(itertools.product((0, 1), (0, 1)))
    rows = [row("identity", "reliability.exact", seed ^ order, "a", seed=seed, order=order) for seed, order in keys]
    rows += [row("ft", "reliability.exact", 1 + (seed ^ order), "a", seed=seed, order=order)
             for seed, order in keys[:2]]
    rows += [row("ft", "reliability.exact", 9, "b", seed=seed, order=order) for seed, order in keys]
    found, notes = compare(rows)
    (one,) = found
    assert (one.difference, one.n) == (1, 1)
    assert notes[0].endswith("2 cases")  # a has runs that only identity has


def test_tables_without_orders_or_seeds():
    rows = random_rows(2)
    bare = [{name: value for name, value in each.items() if name != "seed"} for each in rows]
    full = [each | {"order": 0} for each in rows]
    assert compare(bare) == compare(full) == compare(rows)


def test_several_values_of_one_run_are_one_by_their_mean():
    rows = [row("identity", "reliability.exact", 0, "a"), row("ft", "reliability.exact", 1, "a"),
            row("ft", "reliability.exact", 0, "a"), row("identity", "reliability.exact", 0, "b"),
            row("ft", "reliability.exact", 1, "b")]
    (one,), _ = compare(rows)
    assert one.difference == 0.75


def test_the_order_of_rows_makes_no_difference():
    rows = random_rows(3, cases=40)
    expected = compare(rows)
    for seed in range(3):
        assert compare(random.Random(seed).sample(rows, len(rows))) == expected
    others = [each for each in rows if each["editor"] != "rome"]
    assert compare(others)[0] == [each for each in expected[0] if each.editor == "ft"]


def test_settings_without_the_editor_are_named():
    rows = [*random_rows(4), row("ft", "reliability.exact", 1, "a", protocol="batch", edits=10)]
    found, notes = compare(rows)
    assert {each.protocol for each in found} == {"single"}
    assert notes == ["no 'identity' to compare with in model m, dataset d, protocol batch, edits 10"]


@pytest.mark.parametrize("versus", ["identty", ""])
def test_unknown_editors_are_refused(versus):
    with pytest.raises(InputError, match=r"unknown editor.*Available: ft, identity, rome"):
        compare(random_rows(5), versus)


def test_nothing_to_compare():
    table = pa.Table.from_pylist(random_rows(0)).slice(0, 0)
    assert module.compare(table, "identity") == ([], ["there are no rows to compare yet"])


def test_infinite_values_make_infinite_differences():
    rows = [row("identity", "perplexity", 20, case) for case in "abc"]
    rows += [row("ft", "perplexity", math.inf if case == "a" else 21, case) for case in "abc"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(rows)[0]
        assert to_markdown(found, "all").splitlines()[-1] == "| perplexity | 3 | +inf |"
    written = json.loads(to_json_lines(found))
    assert written["difference"] is written["p"] is None and written["n"] == 3


def comparison(metric, difference, half, p):
    return Comparison("ft", "m", "d", "single", 1, metric, "identity", difference, difference - half,
                      difference + half, p, 200)


ROWS = [comparison("reliability.exact", 0.123, 0.04, 1 / 10_001), comparison("locality.exact", -0.00001, 0, 0.5),
        comparison("perplexity", 1.5, 0.25, 0.03125)]


def test_tables():
    assert to_markdown(ROWS).splitlines() == [
        "model m, dataset d, protocol single, edits 1, difference to identity over the cases that both have, shares in "
        "percent ± half the 95 % confidence interval, p by permutation", "",
        "| editor | cases | reliability.exact | locality.exact |",
        "| --- | --- | --- | --- |",
        "| ft | 200 | +12.3 ±4.0 (p 0.0001) | +0.0 ±0.0 (p 0.5) |"]
    assert "| perplexity | 200 | +1.50 ±0.25 (p 0.031) |" in to_markdown(ROWS, "all")


def test_the_terminal_shows_p_below_the_difference():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(*to_rich_tables(ROWS))
    text = console.export_text()
    assert "+12.3 ±4.0" in text and "(p 0.0001)" in text and "(p\n" not in text


def test_json_names_both_editors():
    first = json.loads(to_json_lines(ROWS).splitlines()[0])
    assert list(first) == ["editor", "model", "dataset", "protocol", "edits", "metric", "versus", "difference", "low",
                           "high", "p", "n", "p_holm"]


def test_p_is_corrected_for_the_comparisons_of_its_table():
    """Of what is shown: two metrics by two editors in one protocol, one in another."""
    rows = [replace(comparison(metric, 0.1, 0.05, p), editor=editor, protocol=protocol)
            for editor, protocol, metric, p in (
                ("ft", "single", "reliability.exact", 0.01), ("ft", "single", "locality.exact", 0.04),
                ("rome", "single", "reliability.exact", 0.03), ("rome", "single", "locality.exact", 0.005),
                ("rome", "single", "reliability.token", 0.001), ("rome", "batch", "reliability.exact", 0.04))]
    main = [row.p_holm for row in corrected(rows, "main")]
    assert main == pytest.approx([0.03, 0.06, 0.06, 0.02, math.nan, 0.04], nan_ok=True)
    everything = [row.p_holm for row in corrected(rows, "all")]
    assert everything == pytest.approx([0.03, 0.06, 0.06, 0.02, 0.005, 0.04])
    text = to_markdown(corrected(rows, "main"))
    assert "p by permutation, corrected by Holm (1979) for 4 comparisons" in text and "for 1 comparison\n" in text
    assert "| ft | 200 | +10.0 ±5.0 (p 0.03) | +10.0 ±5.0 (p 0.06) |" in text
