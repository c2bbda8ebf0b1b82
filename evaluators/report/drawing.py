"""Pictures as files: SVG as it is, PNG and PDF drawn from it by matplotlib, which brings its own fonts and needs
nothing of the machine."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.core.errors import InputError
from evaluators.files import write_bytes, write_text
from evaluators.report.figure import GRID, INK, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMS = (".svg", ".png", ".pdf")
PIXELS = 96  # of an inch, in CSS
SHARPNESS = 2  # pixels of a PNG for one of the SVG
POINTS = 72 / PIXELS
NARROWER = 0.9  # matplotlib's letters are wider than those the pictures are made for
#: Size in pixels, colour and weight of the classes that `figure.STYLE` has.
TEXTS = {"": (13, INK, "normal"), "soft": (11, SOFT, "normal"), "head": (13, INK, "bold"),
         "number": (11.5, SOFT, "normal")}
#: How the page's drawings look by their classes, on white.
CLASSES = {"grid": {"stroke": GRID}, "paper": {"stroke": INK, "stroke-width": "2"},
           "front": {"stroke": SOFT, "stroke-dasharray": "5 4"}, "hollow": {"fill": "#ffffff"}}
_MOVED = re.compile(r"translate\((\S+) (\S+)\)")
ANCHORS = {"start": "left", "middle": "center", "end": "right"}


def check_figure(path: Path) -> None:
    """Raises `InputError` where there is no way to draw into such a file: to be told before long work, not after it."""
    form = path.suffix.lower()
    if form not in FORMS:
        raise InputError(f"'--figure {path}': pictures are {', '.join(FORMS)}; call it '{path.with_suffix('.svg')}'")
    if form != ".svg" and find_spec("matplotlib") is None:
        raise InputError(f"'--figure {path}': a {form[1:].upper()} is drawn by matplotlib, which is not installed: "
                         f"`pip install 'editfleet[figures]'`, or name '{path.with_suffix('.svg')}'")


def write_figure(path: Path, svg: str) -> None:
    """Writes one of our pictures in the form that its name ends in. Raises `InputError` where that cannot be done."""
    check_figure(path)
    form = path.suffix.lower()
    if form == ".svg":
        write_text(path, svg)
    else:
        write_bytes(path, drawn(svg, form[1:]))


def drawn(svg: str, form: str) -> bytes:
    """A picture of `figure`, `curves`, `over_edits` or `bars` as PNG or PDF. The same picture makes the same bytes.

    Raises `ValueError` for elements that these do not have.
    """
    from matplotlib.figure import Figure
    from matplotlib.transforms import Affine2D

    root = ElementTree.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    figure = Figure(figsize=(width / PIXELS, height / PIXELS), dpi=PIXELS)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for order, (element, right, down) in enumerate(_elements(root)):
        has = {**CLASSES.get(element.attrib.get("class", ""), {}), **element.attrib}
        moved = Affine2D().translate(right, down) + axes.transData
        _draw(axes, element.tag.rsplit("}", 1)[-1], has, element.text or "", {"zorder": order, "transform": moved})
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # letters that its fonts lack are boxes
        figure.savefig(data, format=form, dpi=PIXELS * SHARPNESS,
                       metadata={"Software": None} if form == "png" else {"CreationDate": None})
    return data.getvalue()


def _elements(parent: ElementTree.Element, right: float = 0.0,
              down: float = 0.0) -> Iterator[tuple[ElementTree.Element, float, float]]:
    """What is to be drawn, and how far it is moved by the groups that it stands in."""
    for element in parent:
        if element.tag.endswith("}g") and (moved := _MOVED.fullmatch(element.attrib.get("transform", ""))):
            yield from _elements(element, right + float(moved[1]), down + float(moved[2]))
        else:
            yield element, right, down


def _draw(axes: Axes, kind: str, has: Mapping[str, str], text: str, place: Mapping[str, Any]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Polygon, Rectangle

    def number(name: str) -> float:
        return float(has.get(name, 0))

    stroke: dict[str, Any] = {"color": has.get("stroke", "none"),
                              "linewidth": POINTS * float(has.get("stroke-width", 1)),
                              "alpha": float(has.get("stroke-opacity", 1)), **place}
    fill: dict[str, Any] = {"facecolor": has.get("fill", "none"), "alpha": float(has.get("fill-opacity", 1)),
                            "edgecolor": has.get("stroke", "none"), "linewidth": stroke["linewidth"], **place}
    match kind:
        case "style":
            pass
        case "rect":
            axes.add_patch(Rectangle((number("x"), number("y")), number("width"), number("height"), **fill))
        case "circle":
            axes.add_patch(Circle((number("cx"), number("cy")), number("r"), **fill))
        case "polygon":
            axes.add_patch(Polygon(_points(has["points"]), **fill))
        case "line" | "polyline":
            ends = (_points(has["points"]) if kind == "polyline" else
                    [(number("x1"), number("y1")), (number("x2"), number("y2"))])
            dashes = [POINTS * float(part) for part in has.get("stroke-dasharray", "").split()]
            axes.add_line(Line2D(*zip(*ends, strict=True), dash_capstyle="butt",
                                 solid_capstyle="round" if has.get("stroke-linecap") == "round" else "butt",
                                 linestyle=(0, dashes) if dashes else "solid", **stroke))
        case "text":
            size, colour, weight = TEXTS[has.get("class", "")]
            axes.text(number("x"), number("y"), text, fontsize=POINTS * NARROWER * size, color=colour, weight=weight,
                      ha=ANCHORS[has.get("text-anchor", "start")], va="baseline", parse_math=False, **place)
        case _:
            raise ValueError(f"pictures have no '{kind}'")


def _points(text: str) -> list[tuple[float, float]]:
    """`1,2 3,4` as pairs."""
    return [(float(x), float(y)) for x, _, y in (pair.partition(",") for pair in text.split())]
