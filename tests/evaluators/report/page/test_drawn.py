"""The page's figures as one picture: what is in it, and that a PNG has it where the SVG has it."""

import re
import xml.etree.ElementTree as ElementTree

import pyarrow as pa
import pytest
from support.report_rows import HOSTILE, cost_rows, rows

from evaluators.report.colours import COLOURS
from evaluators.report.drawing import SHARPNESS, write_figure
from evaluators.report.page import drawn
from evaluators.report.page.about import About
from evaluators.report.page.sections import measure

SVG = "{http://www.w3.org/2000/svg}"
EDITORS = {"identity": 0.1, "ft": 0.9, "mend": 0.6, "rome": 0.8, HOSTILE["editor"]: 0.5}


@pytest.fixture(scope="module")
def found():
    table = rows(4, editors=EDITORS, protocols=(("single", 1), ("batch", 2), ("batch", 4), ("sequential", 2),
                                                ("sequential", 4)))
    return measure(About("s", "c"), pa.concat_tables([table, cost_rows()]))


def test_every_figure_of_the_page_is_in_it_once_as_answers_count(found):
    picture = ElementTree.fromstring(drawn.to_svg(found, "exact"))
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    for told in ("d on m, whole answers", "Figure 5: d on m (float32) by cuda A", "Cost against quality: d on m, whole "
                 "answers", "Figure 6, edits made as one: d on m, whole answers", "Collapse and forgetting: d on m, "
                 "whole answers", "Figure 7, one edit after another: d on m, whole answers"):
        assert texts.count(told) == 1, told
    assert not any("share of tokens" in text or "free generation" in text for text in texts)
    assert HOSTILE["editor"] in texts and not list(picture.iter(f"{SVG}img"))
    height = float(picture.get("height"))
    assert all(0 < float(group.get("transform").split()[1].rstrip(")")) < height for group in picture.iter(f"{SVG}g"))


def test_what_is_moved_in_the_picture_is_moved_in_a_png(found, tmp_path):
    pytest.importorskip("matplotlib", reason="PNG and PDF need matplotlib")
    from matplotlib.image import imread

    svg = drawn.to_svg(found, "exact")
    write_figure(tmp_path / "x.png", svg)
    image = imread(tmp_path / "x.png")
    colour = COLOURS["mend"]
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        right, down = map(float, re.findall(r"[\d.]+", group.get("transform")))
        for bar in group.iter(f"{SVG}rect"):
            if bar.get("fill") == colour and float(bar.get("width")) > 4 and bar.get("fill-opacity") == "1.0":
                x, y = float(bar.get("x")) + right + 2, float(bar.get("y")) + down + 8
                assert image[round(SHARPNESS * y), round(SHARPNESS * x), :3] == pytest.approx(
                    [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)], abs=0.02)
                return
    raise AssertionError("there is no bar of mend's memory")


def test_nothing_to_draw_is_an_empty_picture():
    svg = drawn.to_svg(measure(About("s", "c"), rows(0)), "exact")
    assert list(ElementTree.fromstring(svg).iter(f"{SVG}text")) == []
