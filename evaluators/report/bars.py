"""What edits cost, as a picture: bars of memory (Yao et al. 2023, figure 5), and seconds on a logarithmic axis (their
table 4), with the paper's numbers as hollow marks where the model is the paper's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from editors.core.printable import CELL, printable
from evaluators.report.axes import Axis, linear, logarithmic
from evaluators.report.colours import colour_of
from evaluators.report.costs import GIB, Cost, papers_cost
from evaluators.report.figure import FOOT, GRID, HEAD, INK, LETTER, MARGIN, ROW, Drawing, text_at
from evaluators.report.paper import in_papers_order

PANEL, GAP, NUMBER = 260, 40, 56  # of bars, between panels, and for the number behind a bar, in pixels


def cost_bars(rows: Sequence[Cost], top: int = 0) -> Drawing:
    """A block for each model, data set, device, dtype and number of edits, from this height on."""
    groups: dict[tuple[str, str, str, str, int], list[Cost]] = defaultdict(list)
    for row in rows:
        groups[row.model, row.dataset, row.device, row.dtype, row.edits].append(row)
    names = MARGIN + LETTER * (2 + max((len(printable(row.editor, CELL)) for row in rows), default=0))
    parts, start = list[str](), top
    for (model, dataset, device, dtype, edits), group in groups.items():
        title = f"cost of {edits} edits of {dataset} on {model} ({dtype}) by {device}"
        height, drawn = _block(title, group, names, top)
        parts += drawn
        top += height
    return Drawing(names + 2 * (PANEL + NUMBER) + GAP + MARGIN if parts else 0, top - start, parts)


def _block(title: str, rows: Sequence[Cost], names: int, top: int) -> tuple[int, list[str]]:
    lines: dict[str, dict[str, Cost]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: in_papers_order(row.editor)):
        lines[row.editor][row.metric] = row
    memory = "device" if any("cost.memory.device" in found for found in lines.values()) else "rss"
    papers = any(papers_cost(row) is not None for row in rows)
    told = "; hollow: Yao et al. 2023, on GPT-J" if papers else ""
    parts = [text_at(MARGIN, top + 22, f"{title}; pale: training; median, least to most{told}", "soft")]
    first = top + HEAD
    for line, editor in enumerate(lines):
        parts.append(text_at(MARGIN, first + ROW * line + ROW / 2 + 4, printable(editor, CELL)))
    found = list(lines.values())
    height = ROW * len(lines)
    parts += _memory(found, f"cost.memory.{memory}", names, first, height)
    parts += _seconds(found, names + PANEL + NUMBER + GAP, first, height)
    return HEAD + height + FOOT, parts


def _memory(lines: Sequence[dict[str, Cost]], metric: str, left: int, top: int, height: int) -> Iterator[str]:
    most = [value / GIB for found in lines for row in found.values() if row.metric in (metric, "cost.training.memory")
            for value in (row.most, papers_cost(row)) if value is not None]
    if not most:
        return
    axis = linear("memory of the " + ("device" if metric.endswith("device") else "process") + ", GiB", max(most))
    yield from _frame(axis, left, top, height)
    for line, found in enumerate(lines):
        y = top + ROW * line + ROW / 2
        if metric not in found:
            continue
        row, training = found[metric], found.get("cost.training.memory")
        if training is not None and training.median > row.median:
            yield _bar(left, PANEL * axis.place(training.median / GIB), y, colour_of(row.editor), 0.35)
        yield _bar(left, PANEL * axis.place(row.median / GIB), y, colour_of(row.editor), 1)
        yield from _paper(row, left, axis, y, GIB)
        largest = max(row.median, training.median if training else 0)
        yield text_at(left + PANEL + NUMBER, y + 4, f"{largest / GIB:.3g}", "number", "end")


def _seconds(lines: Sequence[dict[str, Cost]], left: int, top: int, height: int) -> Iterator[str]:
    rows = [found.get("cost.seconds") for found in lines]
    values = [value for row in rows if row is not None for value in (row.least, row.most, papers_cost(row))
              if value is not None and value > 0]
    if not values:
        return
    axis = logarithmic("seconds, logarithmic", values)
    yield from _frame(axis, left, top, height)
    for line, row in enumerate(rows):
        if row is None or row.least <= 0:
            continue
        y, colour = top + ROW * line + ROW / 2, colour_of(row.editor)
        low, middle, high = (left + PANEL * axis.place(value) for value in (row.least, row.median, row.most))
        yield (f'<line x1="{low:.1f}" y1="{y:g}" x2="{high:.1f}" y2="{y:g}" stroke="{colour}" stroke-width="6" '
               'stroke-opacity="0.4" stroke-linecap="round"/>')
        yield f'<circle cx="{middle:.1f}" cy="{y:g}" r="4.5" fill="{colour}"/>'
        yield from _paper(row, left, axis, y)
        yield text_at(left + PANEL + NUMBER, y + 4, f"{row.median:.3g}", "number", "end")


def _paper(row: Cost, left: int, axis: Axis, y: float, unit: float = 1) -> Iterator[str]:
    if (paper := papers_cost(row)) is not None:
        x = left + PANEL * axis.place(paper / unit)
        yield f'<circle cx="{x:.1f}" cy="{y:g}" r="5" fill="none" stroke="{INK}" stroke-width="1.5"/>'


def _bar(left: int, length: float, y: float, colour: str, opacity: float) -> str:
    return (f'<rect x="{left}" y="{y - ROW / 3:.1f}" width="{length:.1f}" height="{2 * ROW / 3:.1f}" fill="{colour}" '
            f'fill-opacity="{opacity:g}"/>')


def _frame(axis: Axis, left: int, top: int, height: int) -> Iterator[str]:
    yield text_at(left, top - 16, axis.name, "head")
    for tick, label in axis.ticks:
        x = left + PANEL * axis.place(tick)
        yield f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + height}" stroke="{GRID}"/>'
        yield text_at(round(x, 1), top + height + 16, label, "soft", "middle")
