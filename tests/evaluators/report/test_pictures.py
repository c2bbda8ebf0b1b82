"""Curves over the number of edits, bars of costs, and pictures as PNG and PDF."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from editors.core.errors import InputError
from evaluators.report import drawing
from evaluators.report.axes import Values, linear, logarithmic
from evaluators.report.bars import PANEL
from evaluators.report.colours import COLOURS, OTHERS
from evaluators.report.costs import GIB, Cost
from evaluators.report.curves import HEIGHT, WIDTH
from evaluators.report.drawing import check_figure, drawn, write_figure
from evaluators.report.pictures import picture
from evaluators.report.tables import Summary

SVG = "{http://www.w3.org/2000/svg}"


def summary(editor, mean, edits=1, protocol="sequential", metric="reliability.exact"):
    return Summary(editor, "m", "d", protocol, edits, metric, mean, mean - 0.1, mean + 0.1, 7)


def cost(editor, metric, value, model="gpt-j", least=None, most=None):
    return Cost(editor, model, "zsre", "efficiency", 10, metric, value, least or value, most or value, 5, "V100",
                "float32")


STREAM = [summary(editor, mean, edits)
          for editor, means in (("ft", (1.0, 0.5, 0.0)), ("mine", (0.75, 0.5, 0.25)), ("yours", (1, 1, 1)))
          for edits, mean in zip((1, 10, 100), means, strict=True)]
COSTS = [cost("rome", "cost.seconds", 10.0, least=1.0, most=100.0), cost("rome", "cost.memory.device", 40.0 * GIB),
         cost("mend", "cost.seconds", 1.0), cost("mend", "cost.memory.device", 20.0 * GIB),
         cost("mend", "cost.training.memory", 80.0 * GIB)]


def read(rows=(), costs=()):
    return ElementTree.fromstring(picture(rows, costs, [], "main"))


def texts(found):
    return [text.text for text in found.iter(f"{SVG}text")]


def dots(found, colour):
    return [(float(dot.get("cx")), float(dot.get("cy"))) for dot in found.iter(f"{SVG}circle")
            if dot.get("fill") == colour]


def test_streams_are_curves_over_a_logarithmic_number_of_edits():
    found = read(STREAM)
    (x0, y0), (x1, y1), (x2, y2) = dots(found, COLOURS["ft"])
    assert x1 - x0 == pytest.approx(WIDTH / 2, abs=0.2) and x2 - x0 == pytest.approx(WIDTH, abs=0.2)
    assert y1 - y0 == pytest.approx(HEIGHT / 2, abs=0.2) and y2 - y0 == pytest.approx(HEIGHT, abs=0.2)
    assert {"ft", "mine", "yours", "1", "10", "100", "edits"} <= set(texts(found))
    assert any("m, d: sequential" in text and "logarithmic" in text for text in texts(found))


def test_each_editor_has_its_colour_and_those_that_share_one_have_dashes():
    lines = [(line.get("stroke"), line.get("stroke-dasharray")) for line in read(STREAM).iter(f"{SVG}polyline")]
    assert lines == [(COLOURS["ft"], None), (OTHERS, None), (OTHERS, "6 3")]


def test_single_edits_and_streams_are_in_one_picture_below_one_another():
    found = read([summary("ft", 0.5, protocol="single"), *STREAM], COSTS)
    titles = [text for text in texts(found) if text.startswith(("m, d:", "cost of"))]
    assert [title.split(",")[1].split(";")[0].strip() for title in titles[:2]] == ["d: single", "d: sequential"]
    heights = [float(each.get("y")) for each in found.iter(f"{SVG}text") if each.text in titles]
    assert len(titles) == 3 and heights == sorted(heights) and float(found.get("height")) > heights[-1] + 50


def test_bars_are_as_long_as_memory_and_the_papers_marks_stand_beside():
    found = read(costs=COSTS)
    bars = {(bar.get("fill"), bar.get("fill-opacity")): float(bar.get("width")) for bar in found.iter(f"{SVG}rect")
            if bar.get("fill-opacity")}
    assert bars[COLOURS["mend"], "0.35"] == PANEL and bars[COLOURS["mend"], "1"] == PANEL / 4
    assert bars[COLOURS["rome"], "1"] == PANEL / 2
    left = min(float(bar.get("x")) for bar in found.iter(f"{SVG}rect") if bar.get("fill-opacity"))
    marks = [float(mark.get("cx")) - left for mark in found.iter(f"{SVG}circle") if mark.get("fill") == "none"]
    assert marks[0] == pytest.approx(PANEL * 59.4 / 80, abs=0.1) and len(marks) == 4
    [(rome, _)], [(mend, _)] = dots(found, COLOURS["rome"]), dots(found, COLOURS["mend"])
    assert rome - mend == pytest.approx(PANEL / 4, abs=0.2)  # from 0.1 to 1000
    assert texts(found).index("mend") < texts(found).index("rome")  # as in the paper
    assert "none" not in {mark.get("fill") for mark in read(costs=[cost("rome", "cost.seconds", 1.0, "m")]).iter(
        f"{SVG}circle")}


def ticks(axis):
    assert [float(label) for _, label in axis.ticks] == pytest.approx([value for value, _ in axis.ticks])
    return [value for value, _ in axis.ticks]


def test_axes():
    assert ticks(linear("", 69.7)) == [0, 20, 40, 60, 80]
    assert ticks(linear("", 0.3)) == pytest.approx([0, .05, .1, .15, .2, .25, .3])
    assert ticks(linear("", 0)) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0]) and linear("", 80).place(40) == 0.5
    assert ticks(logarithmic("", [0.5, 0, 1800, float("nan")])) == [0.1, 1, 10, 100, 1000, 10000]
    assert logarithmic("", [1]).place(1) == 0 == logarithmic("", [1]).place(0) and ticks(logarithmic("", [])) == [1, 10]
    assert [Values.of("", [1, 10, 100]).place(each) for each in (1, 10, 100)] == pytest.approx([0, 0.5, 1])
    assert [Values.of("", [0, 1, 4]).place(each) for each in (0, 1, 4)] == [0, 0.25, 1]
    assert Values.of("", [True, "a"]).place("a") == 1 and Values.of("", [7]).place(7) == 0.5
    assert [label for _, label in Values.of("", [1, 2, 1000]).axis.labels(100, 20)] == ["1", "", "1000"]


def test_nothing_to_draw_is_an_empty_picture():
    assert list(read().iter(f"{SVG}text")) == []


def test_what_pictures_cannot_be_is_told_before_they_are_drawn(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"pictures are \.svg, \.png, \.pdf; call it '.*x.svg'"):
        check_figure(tmp_path / "x.gif")
    monkeypatch.setattr(drawing, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed: `pip install 'editfleet\[figures\]'`, or name '.*x.svg'"):
        check_figure(tmp_path / "x.pdf")
    write_figure(tmp_path / "x.svg", "<svg/>")
    assert (tmp_path / "x.svg").read_text() == "<svg/>"


HOSTILE = [summary(name, 0.5, protocol="single")
           for name in ("$x_1^2$", "\\frac{", "<b>&", "\u05e9\u05dc\u05d5\u05dd", "日本", "\x1b[31m", "\u202eabc",
                        "x" * 500)]


def test_png_and_pdf_of_all_that_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="PNG and PDF need matplotlib")
    from matplotlib.image import imread

    svg = picture([*HOSTILE, *STREAM], COSTS, [], "main")
    root = ElementTree.fromstring(svg)
    write_figure(tmp_path / "x.png", svg)
    image = imread(tmp_path / "x.png")
    assert image.shape[:2] == pytest.approx((2 * float(root.get("height")), 2 * float(root.get("width"))), abs=2)
    x, y = dots(root, COLOURS["rome"])[0]
    red, green, blue = (int(COLOURS["rome"][at:at + 2], 16) / 255 for at in (1, 3, 5))
    assert image[round(2 * y), round(2 * x), :3] == pytest.approx([red, green, blue], abs=0.02)
    assert image[2, 200, :3] == pytest.approx([1, 1, 1])
    write_figure(tmp_path / "x.pdf", svg)
    written = (tmp_path / "x.pdf").read_bytes()
    assert written.startswith(b"%PDF-") and drawn(svg, "pdf") == written


def test_other_elements_are_refused():
    pytest.importorskip("matplotlib", reason="PNG and PDF need matplotlib")
    with pytest.raises(ValueError, match="no 'script'"):
        drawn('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script/></svg>', "png")


def test_matplotlib_is_loaded_by_nobody_who_draws_an_svg():
    code = "import sys, jobs.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
