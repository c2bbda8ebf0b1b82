import io
import json
import math
import random
import time
import warnings

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from editors.core.errors import InputError
from evaluators.report.intervals import bootstrap
from evaluators.report.tables import Summary, in_percent, summarise, to_json_lines, to_markdown, to_rich_tables
from evaluators.report.views import PAPER
from evaluators.scoring.metrics import METRICS


def row(editor, metric, value, subject, **changes):
    return {"editor": editor, "model": "m", "dataset": "d", "protocol": "single", "edits": 1, "metric": metric,
            "value": value, "case_id": subject, "subject": subject, "task": "t", "seed": 0, **changes}


ROWS = [row(editor, metric, value, subject)
        for editor, share in (("rome", 1.0), ("identity", 0.0), ("[ft]|1e-3", 0.5))
        for metric in ("generality.success", "reliability.exact", "edit.diverged")
        for subject, value in (("a", share), ("b", share / 2), ("c", share / 2))]


def summaries(rows):
    return summarise(pa.Table.from_pylist(rows))


def test_summaries():
    (one,) = summaries([row("ft", "reliability.exact", 0.0, "a"), row("ft", "reliability.exact", 1.0, "b")])
    assert one == Summary("ft", "m", "d", "single", 1, "reliability.exact", 0.5, 0.0, 1.0, 2)


def test_subjects_are_the_clusters():
    (one,) = summaries([row("ft", "reliability.exact", value, "a", case_id=str(value)) for value in (0.0, 1.0)])
    assert (one.low, one.mean, one.high, one.n) == (0.5, 0.5, 0.5, 2)


def test_seeds_and_orders_go_into_one_mean_and_their_cases_count_once():
    (one,) = summaries([row("ft", "reliability.exact", float(order), subject, seed=seed, order=order)
                        for subject in "ab" for seed in (0, 1) for order in (0, 1)])
    assert one == Summary("ft", "m", "d", "single", 1, "reliability.exact", 0.5, 0.5, 0.5, 2)


def test_every_mean_has_the_interval_of_its_own_cases():
    """Metrics that different subjects have, against `bootstrap` of each alone."""
    rng = random.Random(1)
    rows = [row("ft", metric, rng.random(), rng.choice("abcdefgh"), case_id=str(case))
            for number, metric in enumerate(("reliability.exact", "fluency", "portability.exact"))
            for case in range(10 * number + 2)]
    for found in summaries(rows):
        own = [each for each in rows if each["metric"] == found.metric]
        expected = bootstrap([each["value"] for each in own], [each["subject"] for each in own])
        assert (found.mean, found.low, found.high, found.n) == pytest.approx(expected)


THREE = ("reliability.success", "generality.success", "locality.success")


def test_the_harmonic_score_is_of_the_three_means():
    """COUNTERFACT's S. Case c has no locality; it counts in the other two means."""
    rows = [row("ft", metric, value, subject)
            for metric, values in zip(THREE, ((1, 1, 0), (1, 0, 1), (0, 1)), strict=True)
            for subject, value in zip("abc", values, strict=False)]
    found = {each.metric: each for each in summaries(rows)}
    assert found["score.success"].mean == pytest.approx(3 / (3 / 2 + 3 / 2 + 2 / 1))
    assert found["score.success"].n == 3
    assert found["score.success"].low == 0 and found["score.success"].high <= 1
    assert "score.success" not in {each.metric for each in summaries(rows[:6])}


def test_which_metrics_are_shares():
    assert all(in_percent(metric) for metric in (*THREE, "score.success", "reliability.generation", "consistency",
                                               "locality.distracting.exact", "portability.inverse.exact"))
    assert not any(in_percent(metric) for metric in ("perplexity", "fluency", "locality.kl", "locality.attributes.kl",
                                                   "seconds", "edit.seconds", "memory.bytes"))


@pytest.mark.parametrize(("values", "cell"), [
    ((6.2, 6.2), "6.20 ±0.00"), ((0.0123456, 0.0123456), "0.0123 ±0.0000"), ((1234.4, 1234.4), "1234 ±0"),
    ((0.0, 0.0), "0.00 ±0.00"), ((1.0, 3.0), "2.00 ±1.00"), ((2.5e9, 2.5e9), "2.5e+09 ±0"),
    ((1.0, math.inf), "inf"), ((math.inf, math.nan), "nan"), ((0.0, 1.6e308), "8e+307")])
def test_plain_numbers_have_three_digits(values, cell):
    rows = [row("ft", "perplexity", value, subject) for subject, value in zip("ab", values, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summaries(rows)
        assert to_markdown(found, "all").splitlines()[-1] == f"| perplexity | 2 | {cell} |"
    written = json.loads(to_json_lines(found))
    assert (written["mean"] is None) == (cell in ("inf", "nan"))


def test_unknown_metrics_come_last_in_the_order_of_their_names():
    names = ["zeta", "fluency", *reversed(METRICS)]
    assert [each.metric for each in summaries([row("ft", name, 0.0, "a") for name in names])] == [
        *METRICS, "fluency", "score.success", "zeta"]


def test_rows_without_seeds_or_orders_and_with_further_columns():
    bare = [{name: value for name, value in each.items() if name not in ("seed", "task")} for each in ROWS]
    full = [each | {"order": 0, "texts": ["a"]} for each in ROWS]
    assert summaries(bare) == summaries(full) == summaries(ROWS)


def test_rows_of_two_configurations_under_one_label_are_not_summed_up():
    rows = [row("ft", "reliability.exact", value, "a", settings=settings, **where)
            for settings, value in (("1a", 0.0), ("2b", 1.0))
            for where in ({}, {"edits": 10})]
    with pytest.raises(InputError, match=r"'ft' in m, d, single, 1 edits are of 2 configurations.*\(1a, 2b\)"):
        summaries(rows)
    assert [each.mean for each in summaries(rows[:2])] == [0, 0]
    assert [each.mean for each in summaries([rows[0], rows[3]])] == [0, 1]  # settings may vary from table to table


def test_a_million_rows():
    """Grouping must not loop over rows in Python; the time is a coarse bound."""
    count = 1_000_000
    rng = np.random.default_rng(0)
    columns = {"editor": np.array(["ft", "rome"])[rng.integers(2, size=count)], "model": np.full(count, "m"),
               "dataset": np.full(count, "d"), "protocol": np.full(count, "single"), "edits": np.ones(count, int),
               "metric": np.array([*"abcdefg", *THREE])[rng.integers(10, size=count)], "value": rng.random(count),
               "case_id": rng.integers(20_000, size=count).astype(str),
               "subject": rng.integers(2_000, size=count).astype(str)}
    start = time.perf_counter()
    found = summarise(pa.table(columns))
    assert len(found) == 20 + 2 and time.perf_counter() - start < 60
    own = columns["value"][(columns["editor"] == "ft") & (columns["metric"] == found[0].metric)]
    assert found[0].mean == pytest.approx(own.mean())


def test_order_is_the_unedited_model_first_and_metrics_as_declared():
    found = summaries(ROWS)
    assert [(each.editor, each.metric) for each in found] == [
        (editor, metric) for editor in ("identity", "[ft]|1e-3", "rome")
        for metric in ("reliability.exact", "generality.success", "edit.diverged")]
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    assert summaries(shuffled) == found


def test_every_setting_is_summed_up_alone():
    rows = [row("ft", "reliability.exact", float(number), "a", **{field: value})
            for number, (field, value) in enumerate([("edits", 1), ("edits", 10), ("model", "n"), ("dataset", "e"),
                                                     ("protocol", "batch")])]
    assert sorted(each.mean for each in summaries(rows)) == [0, 1, 2, 3, 4]


def test_json_lines():
    lines = to_json_lines(summaries(ROWS)).splitlines()
    assert len(lines) == 9
    first = json.loads(lines[0])
    assert list(first) == ["editor", "model", "dataset", "protocol", "edits", "metric", "mean", "low", "high", "n"]
    assert (first["editor"], first["mean"], first["n"]) == ("identity", 0.0, 3)
    odd = Summary("ft", "m", "d", "single", 1, "perplexity", float("inf"), float("nan"), 1.0, 1)
    assert json.loads(to_json_lines([odd]))["mean"] is json.loads(to_json_lines([odd]))["low"] is None
    assert to_json_lines([]) == ""


def test_markdown_of_the_main_metrics():
    assert to_markdown(summaries(ROWS)).splitlines() == [
        "model m, dataset d, protocol single, edits 1, shares in percent ± half the 95 % confidence interval", "",
        "| editor | cases | reliability.exact |",
        "| --- | --- | --- |",
        "| identity | 3 | 0.0 ±0.0 |",
        "| [ft]\\|1e-3 | 3 | 33.3 ±12.5 |",
        "| rome | 3 | 66.7 ±25.0 |"]


def test_markdown_of_all_metrics_has_a_column_for_each_editor():
    rows = [each for each in ROWS if (each["editor"], each["metric"]) != ("rome", "edit.diverged")]
    assert to_markdown(summaries(rows), "all").splitlines()[2:] == [
        "| metric | cases | identity | [ft]\\|1e-3 | rome |",
        "| --- | --- | --- | --- | --- |",
        "| reliability.exact | 3 | 0.0 ±0.0 | 33.3 ±12.5 | 66.7 ±25.0 |",
        "| generality.success | 3 | 0.0 ±0.0 | 33.3 ±12.5 | 66.7 ±25.0 |",
        "| edit.diverged | 3 | 0.0 ±0.0 | 33.3 ±12.5 | - |"]


def test_settings_that_vary_get_a_column():
    rows = ROWS + [each | {"dataset": "e", "edits": 10} for each in ROWS]
    lines = to_markdown(summaries(rows)).splitlines()
    assert lines[0].startswith("model m, protocol single, shares in percent")
    assert lines[2] == "| editor | dataset | edits | cases | reliability.exact |"
    assert lines[4].startswith("| identity | d | 1 | 3 |") and lines[7].startswith("| identity | e | 10 | 3 |")
    assert len(lines) == 4 + 6


def test_every_protocol_has_a_table_and_numbers_of_edits_follow_one_another():
    rows = [row(editor, "reliability.exact", value, "a", protocol=protocol, edits=edits)
            for protocol, counts in (("sequential", (1, 10)), ("batch", (2,)), ("single", (1,)))
            for edits in counts for editor, value in (("rome", 1 / edits), ("ft", 0.0))]
    assert to_markdown(summaries(rows)).splitlines() == [
        "model m, dataset d, protocol single, edits 1, shares in percent ± half the 95 % confidence interval", "",
        "| editor | cases | reliability.exact |",
        "| --- | --- | --- |",
        "| ft | 1 | 0.0 ±0.0 |",
        "| rome | 1 | 100.0 ±0.0 |", "",
        "model m, dataset d, protocol batch, edits 2, shares in percent ± half the 95 % confidence interval", "",
        "| editor | cases | reliability.exact |",
        "| --- | --- | --- |",
        "| ft | 1 | 0.0 ±0.0 |",
        "| rome | 1 | 50.0 ±0.0 |", "",
        "model m, dataset d, protocol sequential, shares in percent ± half the 95 % confidence interval", "",
        "| editor | edits | cases | reliability.exact |",
        "| --- | --- | --- | --- |",
        "| ft | 1 | 1 | 0.0 ±0.0 |",
        "| ft | 10 | 1 | 0.0 ±0.0 |",
        "| rome | 1 | 1 | 100.0 ±0.0 |",
        "| rome | 10 | 1 | 10.0 ±0.0 |"]
    assert [table.row_count for table in to_rich_tables(summaries(rows))] == [2, 2, 4]


def test_locality_on_unrelated_questions_is_in_the_table_where_it_is_measured():
    rows = [row("ft", f"{asked}.exact", 1.0, "a") for asked in ("reliability", "locality.unrelated")]
    assert to_markdown(summaries(rows)).splitlines()[2] == (
        "| editor | cases | reliability.exact | locality.unrelated.exact |")


def test_the_papers_columns_are_token_accuracy_over_all_records():
    """And locality is on neighbours where a data set has them, else on unrelated questions; the note tells both."""
    values = {"reliability": 0.5, "generality": 0.25, "locality": 0.75, "locality.unrelated": 0.1, "portability": 0.9,
              "portability.all": 0.2}
    rows = [row("ft", f"{asked}.{taken}", value if taken == "token" else 0.0, "a", dataset=dataset)
            for dataset in ("cf", "zsre") for asked, value in values.items() for taken in ("token", "exact")
            if (dataset, asked) != ("zsre", "locality")]
    lines = to_markdown(summaries(rows), "paper").splitlines()
    assert lines[2:] == [
        "| editor | dataset | cases | Reliability | Generality | Locality | Portability |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| ft | cf | 1 | 50.0 ±0.0 | 25.0 ±0.0 | 75.0 ±0.0 | 20.0 ±0.0 |",
        "| ft | zsre | 1 | 50.0 ±0.0 | 25.0 ±0.0 | 10.0 ±0.0 | 20.0 ±0.0 |", "",
        "As Yao et al. 2023: Reliability is reliability.token; Generality is generality.token; Locality is "
        "locality.token of cf and locality.unrelated.token of zsre; Portability is portability.all.token"]
    (table,) = to_rich_tables(summaries(rows), "paper")
    assert [column.header.plain for column in table.columns][3:] == list(PAPER) and table.caption.plain == lines[-1]


@pytest.mark.parametrize("view", ["main", "all"])
def test_rich_table_shows_the_same(view):
    console = Console(width=80, record=True, file=io.StringIO())
    (table,) = to_rich_tables(summaries(ROWS), view)
    console.print(table)
    text = console.export_text()
    for shown in ("identity", "[ft]|1e-3", "66.7 ±25.0", "reliability"):
        assert shown in text


def test_nothing_to_report():
    assert to_markdown([]) == "" and to_rich_tables([]) == []
    columns = pa.Table.from_pylist(ROWS).schema
    assert summarise(pa.Table.from_pylist([], schema=columns)) == []
