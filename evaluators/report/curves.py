"""Sweeps as a picture: a panel for each metric over the setting that is swept, means in bands of their 95 % intervals.

One more setting makes a line of each of its values; where there are more, each combination of their values is a line.
Where most points share the other settings with no other, as in a search, none are joined, and each has a bar for its
interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from evaluators.report.axes import Axis, Values
from evaluators.report.colours import COLOURS, colour_of
from evaluators.report.figure import FOOT, GRID, HEAD, LETTER, MARGIN, TICKS, document, text_at
from evaluators.report.samples import UNEDITED
from evaluators.report.sweeps import Block, Point, Sweep, blocks, shown_value, sweeps, value_key
from evaluators.report.tables import Summary, in_percent
from evaluators.report.views import Headings, View, headings, in_order

WIDTH, HEIGHT, LEFT, GAP, TITLE, LEGEND = 210, 130, 34, 26, 30, 20  # of panels and between them, in pixels
ACROSS = 4  # panels beside one another
LINES = [colour for editor, colour in COLOURS.items() if editor != UNEDITED]
DASHES = ("", "6 3", "2 3", "8 3 2 3")  # of lines beyond the colours


def sweeps_to_svg(rows: Sequence[Summary], points: Sequence[Point], view: View = "main") -> str:
    """An SVG of the main metrics that are shares, or of the paper's: a block for each sweep on each model, data set,
    protocol and number of edits."""
    called = headings([row for row in rows if in_percent(row.metric)], view)
    shown = [row for row in rows if (row.dataset, row.metric) in called]
    drawn = [(sweep, block) for sweep in sweeps(points) for block in blocks(sweep, shown)]
    across = min(ACROSS, max((len(panels_of(block.rows, called)) for _, block in drawn), default=1))
    parts, top = list[str](), 0
    for sweep, block in drawn:
        height, drawing = _block(sweep, block, called, top)
        parts += drawing
        top += height
    return document(2 * MARGIN + across * (LEFT + WIDTH + GAP) - GAP, top + MARGIN // 2, parts)


def panels_of(rows: Sequence[Summary], called: Headings) -> list[str]:
    """The headings that there are rows of, in order."""
    found = {called[row.dataset, row.metric] for row in rows}
    return [name for name in in_order(called) if name in found]


def _across(sweep: Sweep) -> str:
    """The setting along the x axis: of those that are numbers the one with most values, or else the first."""
    def count(name: str) -> int:
        values = sweep.values(name)
        return len(values) if all(value_key(value)[0] == 2 for value in values) else 0

    return max(sweep.settings, key=count)


def _block(sweep: Sweep, block: Block, called: Headings, top: int) -> tuple[int, list[str]]:
    """The panels of one block below its title, and how high they are."""
    setting = _across(sweep)
    values = Values.of(setting, sweep.values(setting))
    lines = _lines(sweep, setting)
    where = ", ".join([*(str(value) for name, value in block.where.items() if name not in ("edits", "protocol")),
                       str(block.where["protocol"])])
    edits = f", {block.where['edits']} edits" if block.where["edits"] > 1 else ""
    title = (f"{sweep.varies} on {where}{edits}, {max(row.n for row in block.rows)} cases; % of cases right over "
             f"{setting}{values.kind}, mean and 95 % interval")
    parts = [text_at(MARGIN, top + 22, title, "soft")]
    panels = panels_of(block.rows, called)
    legend_lines, legend = legend_of([style for style, _ in lines], top + HEAD - 20) if len(lines) > 1 else (0, [])
    parts += legend
    start = top + HEAD - 20 + LEGEND * legend_lines
    each = TITLE + HEIGHT + FOOT + LEGEND
    for number, panel in enumerate(panels):
        left = MARGIN + LEFT + number % ACROSS * (LEFT + WIDTH + GAP)
        upper = start + TITLE + number // ACROSS * each
        rows = {getattr(row, sweep.column): row for row in block.rows if called[row.dataset, row.metric] == panel}
        parts += frame(panel, values.axis, left, upper)
        for style, names in lines:
            at = [(left + WIDTH * values.place(sweep.points[name].settings[setting]), rows[name])
                  for name in names if name in rows]
            parts += curve(sorted(at, key=lambda pair: pair[0]), style, upper)
    return HEAD - 20 + LEGEND * legend_lines + -(-len(panels) // ACROSS) * each, parts


class Style(NamedTuple):
    label: str
    colour: str
    dash: str
    joined: bool = True


def _lines(sweep: Sweep, across: str) -> list[tuple[Style, list[str]]]:
    """The names of the points that a line goes through, and how it looks."""
    others = [name for name in sweep.settings if name != across]
    found: dict[tuple[Any, ...], list[Point]] = {}
    for point in sweep.points.values():
        found.setdefault(tuple(value_key(point.settings[name]) for name in others), []).append(point)
    if len(found) > max(1, len(sweep.points) // 2):
        return [(Style("", colour_of(sweep.varies), "", joined=False), list(sweep.points))]
    lines = []
    for number, key in enumerate(sorted(found)):
        points = found[key]
        label = ", ".join(f"{name} {shown_value(points[0].settings[name])}" for name in others)
        colour = LINES[number % len(LINES)] if len(found) > 1 else colour_of(sweep.varies)
        lines.append((Style(label, colour, DASHES[number // len(LINES) % len(DASHES)]), [each.name for each in points]))
    return lines


def legend_of(styles: Sequence[Style], top: int) -> tuple[int, list[str]]:
    """The lines' labels, in as many rows as they take."""
    parts, x, row = list[str](), MARGIN, 0
    for style in styles:
        width = 26 + LETTER * (len(style.label) + 2)
        if x > MARGIN and x + width > MARGIN + ACROSS * WIDTH:
            x, row = MARGIN, row + 1
        y = top + LEGEND * row + 8
        parts.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 20}" y2="{y - 4}" {_stroke(style)}/>')
        parts.append(text_at(x + 26, y, style.label))
        x += width
    return row + 1, parts


def _stroke(style: Style) -> str:
    return f'stroke="{style.colour}" stroke-width="2"' + (f' stroke-dasharray="{style.dash}"' if style.dash else "")


def frame(panel: str, axis: Axis, left: int, top: int) -> Iterator[str]:
    """A panel's name, its ticks, and what the x axis is."""
    yield text_at(left, top - 10, panel.removesuffix(".exact"), "head")
    for tick in TICKS:
        y = top + HEIGHT * (1 - tick / 100)
        yield f'<line x1="{left}" y1="{y:g}" x2="{left + WIDTH}" y2="{y:g}" stroke="{GRID}"/>'
        yield text_at(left - 6, y + 4, str(tick), "soft", "end")
    for place, label in axis.labels(WIDTH, LETTER):
        x = left + place
        yield f'<line x1="{x:.1f}" y1="{top + HEIGHT}" x2="{x:.1f}" y2="{top + HEIGHT + 4}" stroke="{GRID}"/>'
        if label:
            yield text_at(round(x, 1), top + HEIGHT + 16, label, "soft", "middle")
    yield text_at(left + WIDTH / 2, top + HEIGHT + 32, axis.name, "soft", "middle")


def curve(at: Sequence[tuple[float, Summary]], style: Style, top: int) -> Iterator[str]:
    """Means as dots, on a line in a band between the bounds of their intervals, or each on a bar between its own. What
    is not finite is left out."""
    def y(value: float) -> float:
        return top + HEIGHT * (1 - min(max(value, 0.0), 1.0))

    at = [(x, row) for x, row in at if math.isfinite(row.mean + row.low + row.high)]
    if at and style.joined:
        yield from _joined(at, style, y)
    for x, row in at:
        if not style.joined:
            yield (f'<line x1="{x:.1f}" y1="{y(row.low):.1f}" x2="{x:.1f}" y2="{y(row.high):.1f}" {_stroke(style)} '
                   'stroke-opacity="0.4"/>')
        yield f'<circle cx="{x:.1f}" cy="{y(row.mean):.1f}" r="3.5" fill="{style.colour}"/>'


def _joined(at: Sequence[tuple[float, Summary]], style: Style, y: Callable[[float], float]) -> Iterator[str]:
    band = [*((x, y(row.high)) for x, row in at), *((x, y(row.low)) for x, row in reversed(at))]
    joined = [" ".join(f"{x:.1f},{height:.1f}" for x, height in points)
              for points in (band, [(x, y(row.mean)) for x, row in at])]
    yield f'<polygon points="{joined[0]}" fill="{style.colour}" fill-opacity="0.18"/>'
    yield f'<polyline points="{joined[1]}" fill="none" {_stroke(style)}/>'
