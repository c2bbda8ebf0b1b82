"""Drawings of the page, as SVG that takes the page's colours: only editors have a colour, and a mark, of their own.

A drawing is one panel, small enough for a phone; a figure puts several side by side. Marks differ in shape, so that
colour is never all that tells two editors apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

from editors.core.printable import printable
from evaluators.report.axes import Axis
from evaluators.report.colours import COLOURS, colour_of
from evaluators.report.figure import Drawing

WIDTH, HEIGHT = 340, 230  # of a panel, in the units of its picture
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 30, 42
LABEL = 24  # characters of a name beside a drawing
LETTER = 8  # of a tick's label, with room around
SHAPES = ("circle", "square", "diamond", "up", "down")


class At(NamedTuple):
    """A value at x, with the bounds of its interval; `low` and `high` are `y` where there is none."""

    x: float
    y: float
    low: float
    high: float


PERCENT = Axis("%", 0.0, 1.0, [(tick / 100, str(tick)) for tick in (0, 25, 50, 75, 100)])


def lines(title: str, across: Axis, up: Axis, series: Sequence[tuple[str, Sequence[At]]]) -> Drawing:
    """A panel of lines in bands of their intervals. Values that are not finite are left out."""
    x, y = _scales(across, up)
    parts = _frame(title, across, up)
    for editor, points in series:
        colour, shown = colour_of(editor), [at for at in points if math.isfinite(at.y)]
        if len(shown) > 1:
            bounded = [at for at in shown if math.isfinite(at.low + at.high)]
            band = [(x(at.x), y(at.high)) for at in bounded] + [(x(at.x), y(at.low)) for at in reversed(bounded)]
            parts.append(f'<polygon points="{_points(band)}" fill="{colour}" fill-opacity="0.14"/>')
            path = _points([(x(at.x), y(at.y)) for at in shown])
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [mark(editor, x(at.x), y(at.y)) for at in shown]
    return Drawing(WIDTH, HEIGHT, parts)


def scatter(title: str, across: Axis, up: Axis, series: Sequence[tuple[str, At]], front: Sequence[At] = ()) -> Drawing:
    """A panel of named points with bars for their intervals; `front` is a dashed line through the best of them."""
    x, y = _scales(across, up)
    parts = _frame(title, across, up)
    if len(front) > 1:
        path = _points([(x(at.x), y(at.y)) for at in front])
        parts.append(f'<polyline points="{path}" fill="none" class="front"/>')
    boxes = [(x(at.x) - 6, y(at.y) - 6, x(at.x) + 6, y(at.y) + 6) for _, at in series]
    for editor, at in series:
        parts.append(f'<line x1="{x(at.x):.1f}" y1="{y(at.low):.1f}" x2="{x(at.x):.1f}" y2="{y(at.high):.1f}" '
                     f'stroke="{colour_of(editor)}" stroke-width="2" stroke-opacity="0.5"/>')
        parts.append(mark(editor, x(at.x), y(at.y), 5))
        if (place := _free(x(at.x), y(at.y), len(printable(editor, LABEL)), boxes)) is not None:
            parts.append(_text(*place, printable(editor, LABEL)))
    return Drawing(WIDTH, HEIGHT, parts)


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _free(x: float, y: float, letters: int, boxes: list[Box]) -> tuple[float, float] | None:
    """Where a name has room beside a point, which is then taken; None where it has none: the legend has it."""
    wide = 6.6 * letters
    for left, base in ((x + 9, y + 4), (x - 9 - wide, y + 4), (x - wide / 2, y - 10), (x - wide / 2, y + 18)):
        box = (left, base - 11, left + wide, base + 3)
        inside = box[0] > LEFT - 20 and box[2] < WIDTH and box[1] > TOP - 10 and box[3] < HEIGHT - 14
        if inside and not any(box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
                              for other in boxes):
            boxes.append(box)
            return left, base
    return None


def dots(title: str, rows: Sequence[tuple[str, At | None, float | None]], axis: Axis = PERCENT) -> Drawing:
    """A panel with a row for each editor: its mean on its interval, and an upright bar at the paper's value."""
    height, x, parts = _rows(title, axis, [editor for editor, _, _ in rows], 4)
    for number, (editor, at, paper) in enumerate(rows):
        middle = TOP + 24 * number + 12
        if at is not None and math.isfinite(at.low + at.high):
            parts.append(f'<line x1="{x(at.low):.1f}" y1="{middle}" x2="{x(at.high):.1f}" y2="{middle}" '
                         f'stroke="{colour_of(editor)}" stroke-width="7" stroke-opacity="0.35"/>')
        if at is not None and math.isfinite(at.y):
            parts.append(mark(editor, x(at.y), middle, 5))
        if paper is not None:
            parts.append(_bar(x(paper), middle))
    return Drawing(WIDTH, height, parts)


def bars(title: str, axis: Axis, rows: Sequence[tuple[str, float, float, float | None, float | None]]) -> Drawing:
    """A panel of bars: for each editor a value, what is added to it (lighter), and the paper's values upright."""
    height, x, parts = _rows(title, axis, [row[0] for row in rows], 8)
    for number, (editor, value, more, *papers) in enumerate(rows):
        top = TOP + 24 * number
        for start, end, opacity in ((axis.first, value, 1.0), (value, value + more, 0.4)):
            parts.append(f'<rect x="{x(start):.1f}" y="{top + 4}" width="{max(0.0, x(end) - x(start)):.1f}" '
                         f'height="16" fill="{colour_of(editor)}" fill-opacity="{opacity}"/>')
        parts += [_bar(x(paper), top + 12) for paper in papers if paper is not None]
    return Drawing(WIDTH, height, parts)


def mark(editor: str, x: float, y: float, size: float = 4) -> str:
    """An editor's mark: a shape, filled for one half of the editors and hollow for the other."""
    order = list(COLOURS)
    number = order.index(editor) if editor in order else len(order)
    shape, hollow = SHAPES[number % len(SHAPES)], number >= len(SHAPES)
    colour = colour_of(editor)
    look = f'fill="{colour}"' if not hollow else f'class="hollow" stroke="{colour}" stroke-width="2"'
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" {look}/>'
    wide = size + 1
    corners = {"square": ((-size, -size), (size, -size), (size, size), (-size, size)),
               "diamond": ((0, -wide), (wide, 0), (0, wide), (-wide, 0)),
               "up": ((0, -wide), (wide, size - 1), (-wide, size - 1)),
               "down": ((0, wide), (wide, 1 - size), (-wide, 1 - size))}
    return f'<polygon points="{_points((x + right, y + down) for right, down in corners[shape])}" {look}/>'


def swatch(editor: str) -> str:
    """An editor's mark for a legend."""
    return (f'<svg class="swatch" width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">'
            f"{mark(editor, 7, 7, 4)}</svg>")


def picture(drawing: Drawing) -> str:
    """An SVG that fills its place; what it shows is said beside it."""
    size = f"0 0 {drawing.width} {drawing.height}"
    return f'<svg class="chart" viewBox="{size}" aria-hidden="true">{"".join(drawing.parts)}</svg>'


def _scales(across: Axis, up: Axis) -> tuple[Callable[[float], float], Callable[[float], float]]:
    return (lambda value: LEFT + (WIDTH - LEFT - RIGHT) * across.place(value),
            lambda value: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * up.place(value))


def _frame(title: str, across: Axis, up: Axis) -> list[str]:
    _, y = _scales(across, up)
    parts = [_text(LEFT, 18, title, "head")]
    for value, label in up.ticks:
        parts.append(f'<line x1="{LEFT}" y1="{y(value):.1f}" x2="{WIDTH - RIGHT}" y2="{y(value):.1f}" class="grid"/>')
        parts.append(_text(LEFT - 6, y(value) + 4, label, "soft", "end"))
    for place, label in across.labels(WIDTH - LEFT - RIGHT, LETTER):
        parts.append(f'<line x1="{LEFT + place:.1f}" y1="{HEIGHT - BOTTOM}" x2="{LEFT + place:.1f}" '
                     f'y2="{HEIGHT - BOTTOM + 4}" class="grid"/>')
        if label:
            parts.append(_text(LEFT + place, HEIGHT - BOTTOM + 17, label, "soft", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across.name, "soft", "middle"))
    return parts


def _rows(title: str, axis: Axis, editors: Sequence[str],
          free: float) -> tuple[int, Callable[[float], float], list[str]]:
    """What a panel with a row for each editor begins with: how high it is, where values are, and its frame and names.
    `free` is the room behind the axis."""
    height = TOP + 24 * len(editors) + 26
    left = 20 + 6.8 * max((min(len(printable(editor, LABEL)), LABEL) for editor in editors), default=0)

    def x(value: float) -> float:
        return left + (WIDTH - RIGHT - free - left) * axis.place(value)

    parts = [_text(left, 18, title, "head")]
    for value, label in axis.ticks:
        parts.append(f'<line x1="{x(value):.1f}" y1="{TOP}" x2="{x(value):.1f}" y2="{height - 24}" class="grid"/>')
        parts.append(_text(x(value), height - 9, label, "soft", "middle"))
    parts += [_text(left - 9, TOP + 24 * number + 16, printable(editor, LABEL), "", "end")
              for number, editor in enumerate(editors)]
    return height, x, parts


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _bar(x: float, y: float) -> str:
    """The paper's value."""
    return f'<line x1="{x:.1f}" y1="{y - 10:.1f}" x2="{x:.1f}" y2="{y + 10:.1f}" class="paper"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    at = f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}'
    return f"{at}>{escape(printable(text, 60))}</text>"
