import io
import json
import random

import pyarrow as pa
import pytest
from rich.console import Console

from evaluators.report import Summary, summarise, to_json_lines, to_markdown, to_rich_tables


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
    (one,) = summaries([row("ft", "reliability.exact", value, "a") for value in (0.0, 1.0)])
    assert (one.low, one.mean, one.high, one.n) == (0.5, 0.5, 0.5, 2)


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
        "model m, dataset d, protocol single, edits 1, percent ± half the 95 % confidence interval", "",
        "| editor | cases | reliability.exact |",
        "| --- | --- | --- |",
        "| identity | 3 | 0.0 ±0.0 |",
        "| [ft]\\|1e-3 | 3 | 33.3 ±12.5 |",
        "| rome | 3 | 66.7 ±25.0 |"]


def test_markdown_of_all_metrics_has_a_column_for_each_editor():
    rows = [each for each in ROWS if (each["editor"], each["metric"]) != ("rome", "edit.diverged")]
    assert to_markdown(summaries(rows), all_metrics=True).splitlines()[2:] == [
        "| metric | cases | identity | [ft]\\|1e-3 | rome |",
        "| --- | --- | --- | --- | --- |",
        "| reliability.exact | 3 | 0.0 ±0.0 | 33.3 ±12.5 | 66.7 ±25.0 |",
        "| generality.success | 3 | 0.0 ±0.0 | 33.3 ±12.5 | 66.7 ±25.0 |",
        "| edit.diverged | 3 | 0.0 ±0.0 | 33.3 ±12.5 | - |"]


def test_settings_that_vary_get_a_column():
    rows = ROWS + [each | {"dataset": "e", "edits": 10} for each in ROWS]
    lines = to_markdown(summaries(rows)).splitlines()
    assert lines[0].startswith("model m, protocol single, percent")
    assert lines[2] == "| editor | dataset | edits | cases | reliability.exact |"
    assert lines[4].startswith("| identity | d | 1 | 3 |") and lines[7].startswith("| identity | e | 10 | 3 |")
    assert len(lines) == 4 + 6


def test_every_protocol_has_a_table_and_numbers_of_edits_follow_one_another():
    rows = [row(editor, "reliability.exact", value, "a", protocol=protocol, edits=edits)
            for protocol, counts in (("sequential", (1, 10)), ("batch", (2,)), ("single", (1,)))
            for edits in counts for editor, value in (("rome", 1 / edits), ("ft", 0.0))]
    assert to_markdown(summaries(rows)).splitlines() == [
        "model m, dataset d, protocol single, edits 1, percent ± half the 95 % confidence interval", "",
        "| editor | cases | reliability.exact |",
        "| --- | --- | --- |",
        "| ft | 1 | 0.0 ±0.0 |",
        "| rome | 1 | 100.0 ±0.0 |", "",
        "model m, dataset d, protocol batch, edits 2, percent ± half the 95 % confidence interval", "",
        "| editor | cases | reliability.exact |",
        "| --- | --- | --- |",
        "| ft | 1 | 0.0 ±0.0 |",
        "| rome | 1 | 50.0 ±0.0 |", "",
        "model m, dataset d, protocol sequential, percent ± half the 95 % confidence interval", "",
        "| editor | edits | cases | reliability.exact |",
        "| --- | --- | --- | --- |",
        "| ft | 1 | 1 | 0.0 ±0.0 |",
        "| ft | 10 | 1 | 0.0 ±0.0 |",
        "| rome | 1 | 1 | 100.0 ±0.0 |",
        "| rome | 10 | 1 | 10.0 ±0.0 |"]
    assert [table.row_count for table in to_rich_tables(summaries(rows))] == [2, 2, 4]


@pytest.mark.parametrize("all_metrics", [False, True])
def test_rich_table_shows_the_same(all_metrics):
    console = Console(width=80, record=True, file=io.StringIO())
    (table,) = to_rich_tables(summaries(ROWS), all_metrics=all_metrics)
    console.print(table)
    text = console.export_text()
    for shown in ("identity", "[ft]|1e-3", "66.7 ±25.0", "reliability"):
        assert shown in text


def test_nothing_to_report():
    assert to_markdown([]) == "" and to_rich_tables([]) == []
    columns = pa.Table.from_pylist(ROWS).schema
    assert summarise(pa.Table.from_pylist([], schema=columns)) == []
