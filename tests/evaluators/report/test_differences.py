"""What differs between two sides, against plain loops over their rows."""

from __future__ import annotations

import math
import random
import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from evaluators.report.compare import compare
from evaluators.report.differences import (
    Cell,
    cells,
    cells_grid,
    changed_numbers,
    changes_grid,
    compare_cells,
    of_tasks,
)
from evaluators.report.grids import grids_to_markdown
from evaluators.report.samples import Setting
from evaluators.report.tables import summarise


def row(task, metric, case, value, editor="ft", **changes):
    return {"editor": editor, "model": "m", "dataset": "d", "protocol": "single", "edits": 1, "metric": metric,
            "value": value, "case_id": case, "subject": case[:1], "task": task, "settings": "s", "seed": 0, "order": 0,
            **changes}


def table(rows):
    return pa.Table.from_pylist(rows)


def test_equal_rows_in_another_order_have_no_changes():
    rows = [row(task, metric, case, value) for task in "xy" for metric in ("edit.diverged", "reliability.exact")
            for case in "abc" for value in (0.0, 1.0, math.nan)]
    other = random.Random(0).sample(rows, len(rows))
    assert changed_numbers(table(rows), table(other)) == []
    nothing = table(rows).slice(0, 0)
    assert changed_numbers(nothing, nothing) == []


def test_changes_against_a_plain_loop():
    rng = random.Random(1)
    metrics, tasks = ("edit.diverged", "generality.exact", "reliability.exact"), ("t1", "t2")
    keys = [(task, metric, f"case{case}") for task in tasks for metric in metrics for case in range(40)]
    first = {key: rng.choice([0.0, 1.0, 20.0, math.inf, math.nan]) for key in keys if rng.random() < 0.95}
    second = {key: value if rng.random() < 0.8 else value + rng.choice([1e-9, 0.25, -3.0])
              for key, value in first.items() if rng.random() < 0.95}
    found = {each.metric: each for each in changed_numbers(*(
        table([row(task, metric, case, value) for (task, metric, case), value in side.items()])
        for side in (first, second)), tolerance=1e-6)}
    for metric in metrics:
        own, other = ({key for key in side if key[1] == metric} for side in (first, second))
        gaps = {key: second[key] - first[key] for key in own & other
                if first[key] != second[key] and not (math.isnan(first[key]) and math.isnan(second[key]))}
        changes = {key: gap for key, gap in gaps.items()
                   if abs(gap) > 1e-6 * max(1, abs(first[key]), abs(second[key]))}
        each = found[metric]
        assert (each.numbers, each.changed) == (len(own & other), len(changes)) and changes
        assert (each.only_a, each.only_b) == (len(own - other), len(other - own))
        assert abs(each.largest) == max(map(abs, changes.values()))
        assert each.largest == changes[each.task, metric, each.case_id]


def test_a_number_that_became_none_is_the_largest_change():
    sides = [table([row("t", "reliability.exact", case, value) for case, value in zip("ab", values, strict=True)])
             for values in ((0.0, 1.0), (9.0, math.nan))]
    (each,) = changed_numbers(*sides)
    assert (each.changed, each.largest, each.case_id) == (2, math.inf, "b")


def test_several_numbers_of_one_case_pair_by_size():
    sides = [table([row("t", "reliability.exact", "a", value) for value in values])
             for values in ((1.0, 2.0, 3.0), (3.5, 1.0, 2.0, 7.0))]
    (each,) = changed_numbers(*sides)
    assert (each.numbers, each.changed, each.only_a, each.only_b, each.largest) == (3, 1, 0, 1, 0.5)


def test_cells_and_their_tasks():
    rows = [row("t1", "reliability.exact", "a", 1.0), row("t2", "reliability.exact", "b", 1.0),
            row("t3", "reliability.exact", "a", 1.0, editor="rome", edits=10)]
    setting = Setting("m", "d", "single", 1)
    assert cells(table(rows)) == {Cell("ft", setting): {"t1", "t2"},
                                  Cell("rome", setting._replace(edits=10)): {"t3"}}
    assert of_tasks(table(rows), {"t1", "t3"})["task"].to_pylist() == ["t1", "t3"]


def test_cells_compare_as_two_editors_would():
    """Against `compare` on one table, where the sides are called two editors; and means against `summarise`."""
    rng = random.Random(2)
    sides = [[row("t", metric, f"{case}", rng.random(), settings=side)
              for metric in ("generality.success", "locality.success", "reliability.success")
              for case in cases] for side, cases in (("A", range(30)), ("B", range(10, 45)))]
    found = {each.metric: each for each in compare_cells(*map(table, sides))}
    assert set(found) == {"generality.success", "locality.success", "reliability.success", "score.success"}
    named = [[{**each, "editor": name} for each in side] for name, side in zip("AB", sides, strict=True)]
    for each in compare(table([*named[0], *named[1]]), "A").comparisons:
        ours = found[each.metric]
        assert (ours.difference, ours.low, ours.high, ours.n) == (each.difference, each.low, each.high, each.n)
        assert (ours.editor, ours.n) == ("ft", 20)
    for name, side in zip(("mean_a", "mean_b"), sides, strict=True):
        for each in summarise(table(side)):
            assert getattr(found[each.metric], name) == pytest.approx(each.mean, abs=1e-12)


def test_sides_without_a_common_case_or_metric_have_means_alone():
    first = table([row("t", "reliability.exact", "a", 1.0), row("t", "edit.diverged", "a", 0.0)])
    second = table([row("u", "reliability.exact", "b", 0.0)])
    diverged, reliability = sorted(compare_cells(first, second), key=lambda each: each.metric)
    assert (reliability.mean_a, reliability.mean_b, reliability.n) == (1.0, 0.0, 0)
    assert math.isnan(reliability.difference) and math.isnan(diverged.mean_b) and diverged.mean_a == 0.0


def test_grids_show_what_is_in_names_and_do_not_obey_it():
    first, second = ([row("t|1", "reliability.exact", "\x1b[2J|", value, editor="a|\u202e")] for value in (1.0, 0.5))
    changes, found = changed_numbers(table(first), table(second)), compare_cells(table(first), table(second))
    text = grids_to_markdown([changes_grid(changes, {}), cells_grid(found, False)])
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b[2J\\|" in text.replace("\\\\", "\\")
    assert "| 100.0 | 50.0 | 1 | -50.0 ±0.0 |" in text and "-0.5" in text


def test_a_million_rows_take_seconds_and_less_than_two_gibibytes():
    count, metrics = 1_000_000, [f"metric{number}" for number in range(20)]
    numbers = np.arange(count)

    def strings(codes, values):
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(values)).cast(pa.string())

    same = {name: strings(numbers * 0, [name]) for name in ("editor", "model", "dataset", "protocol", "settings")}
    cases = strings(numbers // 20, [f"case{number}" for number in range(count // 20)])
    sides = [pa.table({**same, "edits": pa.array(numbers * 0 + 1), "metric": strings(numbers % 20, metrics),
                       "value": pa.array(numbers % 7 / 7 + shift * (numbers % 1000 == 0)), "case_id": cases,
                       "subject": cases, "seed": pa.array(numbers * 0), "order": pa.array(numbers * 0),
                       "task": strings(numbers // 1000, [f"{number:024}" for number in range(1000)])})
             for shift in (0.0, 0.5)]
    tracemalloc.start()
    began = time.process_time()
    changed = changed_numbers(*sides)
    took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(each.metric, each.numbers, each.changed) for each in changed] == [("metric0", count // 20, 1000)]
    assert took < 30 and peak + sum(side.nbytes for side in sides) < 2 * 2**30
