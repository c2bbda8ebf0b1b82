"""Rows as CSV, read back."""

import csv
import io

import pytest

from evaluators.report.compare import Comparison
from evaluators.report.costs import GIB, Cost
from evaluators.report.sheets import to_csv
from evaluators.report.tables import Summary


def read(rows, view="main"):
    return list(csv.DictReader(io.StringIO(to_csv(rows, view))))


def summary(editor, metric, mean, **changes):
    return Summary(**{"editor": editor, "model": "gpt-j", "dataset": "zsre", "protocol": "single", "edits": 1,
                      "metric": metric, "mean": mean, "low": mean - 0.125, "high": mean + 0.125, "n": 7, **changes})


def test_a_line_for_each_cell_with_the_papers_number_in_the_same_unit():
    rows = [summary("ft", "reliability.token", 0.5), summary("ft", "reliability.exact", 0.25),
            summary("ft", "reliability.token", 0.75, protocol="batch", edits=10),
            summary("rome", "locality.unrelated.token", 1.0)]
    found = read(rows)
    assert list(found[0])[:11] == ["editor", "model", "dataset", "protocol", "edits", "metric", "mean", "low", "high",
                                   "n", "paper"]
    assert [(line["mean"], line["low"], line["high"], line["n"], line["paper"]) for line in found] == [
        ("0.5", "0.375", "0.625", "7", "0.547"), ("0.25", "0.125", "0.375", "7", ""),
        ("0.75", "0.625", "0.875", "7", ""), ("1.0", "0.875", "1.125", "7", "1.0")]
    assert [line["metric"] for line in read(rows, "paper")] == ["reliability.token", "reliability.token",
                                                                "locality.unrelated.token"]
    assert {line["statistic"] for line in found} == {"mean, 95 % interval"}


def test_costs_say_that_they_are_medians():
    costs = [Cost("mend", "gpt-j", "counterfact", "efficiency", 10, metric, value, value / 2, value * 2, 5, "V100",
                  "float32")
             for metric, value in (("cost.seconds", 0.5), ("cost.memory.device", 64.0 * GIB), ("cost.joules", 8.0))]
    seconds, memory, joules = read(costs)
    assert (seconds["mean"], seconds["low"], seconds["high"], seconds["paper"]) == ("0.5", "0.25", "1.0", "0.51")
    assert seconds["statistic"] == "median, least, most" and seconds["device"] == "V100"
    assert float(memory["paper"]) == 59.4 * GIB and joules["paper"] == ""


def test_differences_have_columns_of_their_own():
    row = Comparison("ft", "m", "d", "single", 1, "reliability.exact", "rome", 0.5, 0.25, 0.75, 0.01, 9, 0.02)
    [line] = read([row])
    assert [line[name] for name in ("versus", "difference", "low", "high", "p", "p_holm", "n")] == [
        "rome", "0.5", "0.25", "0.75", "0.01", "0.02", "9"]


def test_nothing_is_its_columns():
    assert to_csv([]).startswith("editor,model,") and to_csv([]).count("\n") == 1


@pytest.mark.parametrize(("name", "found"), [
    ('a,"b"', 'a,"b"'), ("=HYPERLINK(1)", "'=HYPERLINK(1)"), ("-1+1", "'-1+1"), ("@x", "'@x"), ("+x", "'+x"),
    ("\t=x", "\\t=x"), ("a\r\nb", "a\\r\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\u202eabc", "\\u202eabc"),
    ("\ud800", "\\ud800"), ("שלום", "שלום"), ("x" * 500, "x" * 500)])
def test_hostile_names(name, found):
    [line] = read([summary(name, "reliability.exact", float("nan"))])
    assert line["editor"] == found and line["mean"] == ""
    to_csv([summary(name, "reliability.exact", 0.5)]).encode()
