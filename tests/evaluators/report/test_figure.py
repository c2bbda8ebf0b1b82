"""The picture of results: read back from its SVG, dots stand where the means are."""

import xml.etree.ElementTree as ElementTree

import pytest

from evaluators.report.colours import COLOURS, OTHERS
from evaluators.report.figure import PANEL, to_svg
from evaluators.report.tables import Summary

SVG = "{http://www.w3.org/2000/svg}"


def summary(editor, metric, mean, edits=1):
    protocol = "single" if edits == 1 else "batch"
    return Summary(editor, "m", "d", protocol, edits, metric, mean, mean - 0.1, mean + 0.1, 7)


def drawn(*rows, view="main"):
    return ElementTree.fromstring(to_svg(rows, view))


def texts(picture):
    return [text.text for text in picture.iter(f"{SVG}text")]


def test_dots_stand_where_the_means_are_and_numbers_beside_them():
    means = {("identity", "reliability.exact"): 0.0, ("<ft>", "reliability.exact"): 0.5,
             ("identity", "locality.exact"): 1.0, ("<ft>", "locality.exact"): 0.25}
    picture = drawn(*(summary(editor, metric, mean) for (editor, metric), mean in means.items()))
    centres = [float(dot.get("cx")) for dot in picture.iter(f"{SVG}circle")]
    heights = [float(dot.get("cy")) for dot in picture.iter(f"{SVG}circle")]
    assert [centre - centres[0] for centre in centres[:2]] == [0, PANEL / 2]  # of reliability: identity, then ft
    assert centres[2] - centres[3] == 0.75 * PANEL
    assert heights[:2] == heights[2:] and heights[0] < heights[1]
    shown = texts(picture)
    assert shown.index("identity") < shown.index("<ft>") and {"reliability", "locality"} < set(shown)
    assert [text for text in shown if "." in text] == ["0.0", "50.0", "100.0", "25.0"]


def test_intervals_end_inside_the_panel():
    picture = drawn(summary("ft", "reliability.exact", 0.98))
    [line] = [line for line in picture.iter(f"{SVG}line") if line.get("stroke-linecap")]
    [dot] = picture.iter(f"{SVG}circle")
    left, middle, right = float(line.get("x1")), float(dot.get("cx")), float(line.get("x2"))
    assert middle - left == pytest.approx(0.1 * PANEL, abs=0.1)
    assert right - middle == pytest.approx(0.02 * PANEL, abs=0.1)


def test_each_setting_has_a_block_and_only_main_shares_are_drawn():
    picture = drawn(summary("ft", "reliability.exact", 0.5), summary("ft", "reliability.exact", 0.25, edits=10),
                    summary("ft", "reliability.token", 0.5), summary("ft", "perplexity", 30.0))
    assert len(list(picture.iter(f"{SVG}circle"))) == 2
    titles = [text.split(";")[0] for text in texts(picture) if "cases;" in text]
    assert titles == ["m, d: batch, 10 edits, 7 cases", "m, d: single, 7 cases"]


def test_the_papers_columns_can_be_drawn():
    picture = drawn(summary("ft", "reliability.token", 0.5), summary("ft", "reliability.exact", 0.25),
                    summary("ft", "locality.unrelated.token", 0.75), view="paper")
    shown = texts(picture)
    assert {"Reliability", "Locality", "50.0", "75.0"} <= set(shown) and "25.0" not in shown


def test_each_editor_has_its_colour():
    picture = drawn(*(summary(editor, "reliability.exact", 0.5) for editor in ("identity", "ft", "my-own")))
    assert [dot.get("fill") for dot in picture.iter(f"{SVG}circle")] == [COLOURS["identity"], COLOURS["ft"], OTHERS]
