"""All that a report draws, one below the other: results of edits, how editors bear more of them, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluators.report.bars import cost_bars
from evaluators.report.costs import Cost
from evaluators.report.curves import sweeps_to_svg
from evaluators.report.figure import MARGIN, Drawing, document, dots
from evaluators.report.over_edits import edit_curves, over_edits
from evaluators.report.sweeps import Point
from evaluators.report.tables import Summary
from evaluators.report.views import View


def picture(rows: Sequence[Summary], costs: Sequence[Cost], points: Sequence[Point], view: View) -> str:
    """An SVG. Of a sweep it has the points alone."""
    if points:
        return sweeps_to_svg(rows, points, view)
    several, single = over_edits(rows)
    width, top, parts = 2 * MARGIN, 0, list[str]()
    draw: Sequence[Callable[[int], Drawing]] = (lambda top: dots(single, view, top),
                                                lambda top: edit_curves(several, view, top),
                                                lambda top: cost_bars(costs, top))
    for each in draw:
        drawing = each(top)
        width, top, parts = max(width, drawing.width), top + drawing.height, [*parts, *drawing.parts]
    return document(width, top + MARGIN // 2, parts)
