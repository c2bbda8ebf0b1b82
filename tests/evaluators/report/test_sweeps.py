"""Tables and pictures of campaigns that are swept over settings."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import product

import pytest

from evaluators.report.colours import COLOURS
from evaluators.report.curves import HEIGHT, WIDTH, sweeps_to_svg
from evaluators.report.grids import grids_to_markdown, grids_to_rich
from evaluators.report.sweeps import Point, points_to_json_lines, sweep_grids, sweeps, value_key
from evaluators.report.tables import Summary, best_of

SVG = "{http://www.w3.org/2000/svg}"


def summary(editor, metric, mean, n=7, **changes):
    where = {"model": "m", "dataset": "d", "protocol": "single", "edits": 1, **changes}
    return Summary(editor, *where.values(), metric, mean, mean - 0.1, mean + 0.1, n)


def points(part="editors", varies="ft", **settings):
    return [Point(part, " ".join([varies, *(f"{name}={value}" for name, value in zip(settings, values, strict=True))]),
                  varies, dict(zip(settings, values, strict=True))) for values in product(*settings.values())]


RATES = points(lr=[0.01, 1e-5, 0.001])
MEANS = {"ft lr=0.01": (1.0, 0.25), "ft lr=1e-05": (0.5, 1.0), "ft lr=0.001": (1.0, 0.75)}
ROWS = [summary("identity", "reliability.exact", 0.0),
        *(summary(name, metric, mean) for name, means in MEANS.items()
          for metric, mean in zip(("reliability.exact", "locality.exact"), means, strict=True))]


def lines_of(grid):
    return [line[:grid.names] for line in grid.body]


def test_a_row_for_each_point_in_the_order_of_its_values():
    [grid] = sweep_grids(ROWS, RATES, "main")
    assert grid.head == ["lr", "cases", "reliability.exact", "locality.exact"] and "ft by lr" in grid.title
    assert [line[0] for line in grid.body] == ["1e-05", "0.001", "0.01"]
    assert grid.body[0] == ["1e-05", "7", "50.0 ±10.0", "100.0 ±10.0"]


def test_the_best_of_each_column_stands_out():
    [grid] = sweep_grids(ROWS, RATES, "main")
    assert grid.best == {(1, 2), (2, 2), (0, 3)}  # two are equally reliable
    text = grids_to_markdown([grid])
    assert "| 1e-05 | 7 | 50.0 ±10.0 | **100.0 ±10.0** |" in text and "--versus" in text
    [table] = grids_to_rich([grid])
    assert [cell.plain for cell in table.columns[3].cells] == ["*100.0 ±10.0", "75.0 ±10.0", "25.0 ±10.0"]


def test_the_best_by_the_direction_of_the_metric():
    diverged = [summary(str(number), "edit.diverged", mean) for number, mean in enumerate((0.5, 0.25, math.nan, 0.25))]
    assert best_of([*diverged, None]) == [1, 3]
    assert best_of([summary("a", "reliability.exact", 0.5)] * 2) == []  # nothing to choose from
    assert best_of([diverged[1], diverged[2], diverged[3]]) == [0, 2]  # who diverged is worse
    assert best_of([summary("a", "nobody's", 0.5), summary("b", "nobody's", 0.7)]) == []


def test_values_of_all_kinds_sort():
    values = [[2, 1], "b", 10, "a", 0.5, True, None, [2], {"a": 1}, False, 2]
    assert sorted(values, key=value_key) == [None, False, True, 0.5, 2, 10, "a", "b", [2], [2, 1],
                                             {"a": 1}]


def test_two_settings_and_what_else_varies_have_columns():
    grid_points = points(lr=[0.1, 0.2], steps=[5, 50])
    rows = [summary(point.name, "reliability.exact", 0.1 * number, edits=edits, protocol="batch")
            for edits in (10, 2) for number, point in enumerate(grid_points)]
    [grid] = sweep_grids(rows, grid_points, "main")
    assert grid.head[:4] == ["edits", "lr", "steps", "cases"] and lines_of(grid) == [
        [edits, lr, steps] for edits in ("2", "10") for lr in ("0.1", "0.2") for steps in ("5", "50")]
    assert {line for line, _ in grid.best} == {3, 7}  # of each number of edits


@pytest.mark.parametrize(("part", "field"), [("models", "model"), ("datasets", "dataset")])
def test_models_and_data_sets_can_be_swept(part, field):
    found = points(part, "x", dtype=["float32", "bfloat16"])
    rows = [summary("ft", "reliability.exact", 0.5, **{field: point.name}) for point in found]
    [grid] = sweep_grids(rows, found, "main")
    assert [line[0] for line in grid.body] == ["bfloat16", "float32"] and "editor ft" in grid.title


def test_grids_of_other_settings_are_tables_of_their_own():
    assert [sweep.settings for sweep in sweeps([*points(lr=[1, 2]), *points(steps=[5])])] == [("lr",), ("steps",)]


def test_the_papers_columns():
    rows = [summary(point.name, "reliability.token", 0.5) for point in RATES]
    [grid] = sweep_grids(rows, RATES, "paper")
    assert grid.head[-1] == "Reliability" and "reliability.token" in grid.note


def test_programs_are_told_what_names_stand_for():
    first = json.loads(points_to_json_lines(RATES).splitlines()[0])
    assert first == {"part": "editors", "name": "ft lr=0.01", "varies": "ft", "settings": {"lr": 0.01}}


def test_hostile_names_are_shown_and_not_obeyed():
    found = points(varies="\x1b[2J|", layer=["a|\u202e", "<script>"])
    rows = [summary(point.name, "reliability.exact", number / 2) for number, point in enumerate(found)]
    text = grids_to_markdown(sweep_grids(rows, found, "main"))
    picture = sweeps_to_svg(rows, found)
    assert "\x1b" not in text + picture and "\u202e" not in text + picture and "a\\|" in text
    assert "<script>" not in picture and "<script>" in set(ElementTree.fromstring(picture).itertext())


# --- pictures


def drawn(rows, found, view="main"):
    return ElementTree.fromstring(sweeps_to_svg(rows, found, view))


def dots(picture):
    return [(float(dot.get("cx")), float(dot.get("cy")), dot.get("fill")) for dot in picture.iter(f"{SVG}circle")]


def test_dots_stand_at_the_logarithm_of_the_setting_and_at_the_mean():
    picture = drawn(ROWS, RATES)
    reliability, locality = dots(picture)[:3], dots(picture)[3:]
    left = reliability[0][0]
    assert [x - left for x, _, _ in reliability] == pytest.approx([0, WIDTH * 2 / 3, WIDTH], abs=0.1)
    assert [reliability[0][1] - y for _, y, _ in reliability] == pytest.approx([0, HEIGHT / 2, HEIGHT / 2], abs=0.1)
    assert [y - locality[0][1] for _, y, _ in locality] == pytest.approx([0, HEIGHT / 4, HEIGHT * 3 / 4], abs=0.1)
    assert {colour for _, _, colour in dots(picture)} == {COLOURS["ft"]}
    assert any("over lr, logarithmic" in text for text in picture.itertext())


def test_a_band_goes_between_the_bounds_and_stays_in_the_panel():
    picture = drawn(ROWS, RATES)
    band = next(iter(picture.iter(f"{SVG}polygon"))).get("points").split()
    heights = [float(pair.split(",")[1]) for pair in band]
    (_, middle, _), _, (_, top, _) = dots(picture)[:3]
    assert heights[0] == pytest.approx(middle - HEIGHT / 10, abs=0.1)  # the first point's upper bound
    assert heights[-1] == pytest.approx(middle + HEIGHT / 10, abs=0.1)
    assert heights[2] == pytest.approx(top, abs=0.1) and len(band) == 6  # 110 % is not shown


def test_values_that_span_little_are_on_a_linear_axis_and_others_have_a_place_each():
    for values, places in (([1, 2, 5], [0, 0.25, 1]), (["a", "b", [1]], [0, 0.5, 1]), ([0, 1, 100], [0, 0.01, 1])):
        found = points(steps=values)
        picture = drawn([summary(point.name, "reliability.exact", 0.5) for point in found], found)
        left = dots(picture)[0][0]
        assert [x - left for x, _, _ in dots(picture)] == pytest.approx([WIDTH * place for place in places], abs=0.1)


def test_a_second_setting_makes_lines_with_a_legend():
    found = points(steps=[5, 25, 50], layer=["one", "two"])
    rows = [summary(point.name, "reliability.exact", number / 10) for number, point in enumerate(found)]
    picture = drawn(rows, found)
    lines = [line for line in picture.iter(f"{SVG}polyline")]
    assert len(lines) == 2 and len({line.get("stroke") for line in lines}) == 2
    assert {"layer one", "layer two"} <= set(picture.itertext()) and "steps" in set(picture.itertext())
    assert all(len(line.get("points").split()) == 3 for line in lines)


def test_more_settings_are_in_the_lines_labels_and_many_lines_are_told_apart():
    found = points(lr=[1, 2, 3], layer=[1, 2], norm=[True, None], decay=[0, 1, 2])
    rows = [summary(point.name, "reliability.exact", 0.5) for point in found]
    picture = drawn(rows, found)
    looks = [(line.get("stroke"), line.get("stroke-dasharray")) for line in picture.iter(f"{SVG}polyline")]
    assert len(looks) == len(set(looks)) == 12 and "layer 1, norm null, decay 0" in set(picture.itertext())


def test_points_of_a_search_are_not_joined():
    """Where hardly any share a number of steps, they are on no line, and each has its interval."""
    found = [Point("editors", f"ft {number}", "ft", {"lr": rate, "steps": steps})
             for number, (rate, steps) in enumerate(((0.1, 5), (0.4, 9), (0.2, 5)))]
    picture = drawn([summary(point.name, "reliability.exact", 0.5) for point in found], found)
    bars = [line for line in picture.iter(f"{SVG}line") if line.get("stroke-opacity")]
    assert len(bars) == len(dots(picture)) == 3 and not list(picture.iter(f"{SVG}polyline"))
    for bar in bars:
        assert float(bar.get("y1")) - float(bar.get("y2")) == pytest.approx(HEIGHT * 0.2, abs=0.1)


def test_what_is_no_share_or_not_finite_is_not_drawn():
    rows = [*ROWS, *(summary(name, "perplexity", 30.0) for name in MEANS),
            summary("ft lr=0.01", "generality.exact", math.nan)]
    picture = drawn(rows, RATES)
    assert len(dots(picture)) == 6 and re.search("perplexity", " ".join(picture.itertext())) is None
