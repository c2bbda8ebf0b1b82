"""The page's figures without the page, as one picture that brings its own colours."""

from __future__ import annotations

from evaluators.report.drawing import CLASSES
from evaluators.report.figure import LETTER, MARGIN, STYLE, document, text_at
from evaluators.report.page.blocks import Figure
from evaluators.report.page.charts import WIDTH, mark
from evaluators.report.page.plain import of_way
from evaluators.report.page.sections import Measured

ACROSS, GAP, TITLE, LEGEND = 3, 12, 50, 20  # panels beside one another; between and above them; a line of a legend


def to_svg(found: Measured, way: str) -> str:
    """Every figure in which answers are taken in this way, or in the first that there is, one below the other."""
    figures = [block for section in found.sections for block in section.blocks if isinstance(block, Figure)]
    parts, top = list[str](), 0
    for figure in of_way(figures, way):
        height, drawn = _figure(figure, top)
        parts += drawn
        top += height
    looks = "".join(f".{name}{{{';'.join(f'{key}:{value}' for key, value in look.items())}}}"
                    for name, look in CLASSES.items())
    return document(2 * MARGIN + ACROSS * (WIDTH + GAP) - GAP, top + MARGIN, parts, STYLE + looks)


def _figure(figure: Figure, top: int) -> tuple[int, list[str]]:
    parts = [text_at(MARGIN, top + 24, figure.caption, "head"), text_at(MARGIN, top + 42, figure.note, "soft")]
    lines, legend = _legend([label for label, _ in figure.legend], top + TITLE)
    height = TITLE + LEGEND * lines
    parts += legend
    for start in range(0, len(figure.panels), ACROSS):
        row = [panel.drawing for panel in figure.panels[start:start + ACROSS]]
        for number, drawing in enumerate(row):
            place = f"{MARGIN + number * (WIDTH + GAP)} {top + height}"
            parts.append(f'<g transform="translate({place})">{"".join(drawing.parts)}</g>')
        height += max(drawing.height for drawing in row) + GAP
    return height + GAP, parts


def _legend(labels: list[str], top: int) -> tuple[int, list[str]]:
    """Each editor's mark and name, in as many lines as they take."""
    parts, x, line = list[str](), MARGIN, 0
    for label in labels:
        width = 22 + LETTER * (len(label) + 2)
        if x > MARGIN and x + width > MARGIN + ACROSS * WIDTH:
            x, line = MARGIN, line + 1
        y = top + LEGEND * line + 10
        parts += [mark(label, x + 7, y - 4), text_at(x + 18, y, label)]
        x += width
    return (line + 1 if labels else 0), parts
