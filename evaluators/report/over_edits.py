"""How editors bear more and more edits, as a picture: a panel for each metric over the number of edits on a logarithmic
axis, a line for each editor (Yao et al. 2023, figures 6 and 7)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from editors.core.printable import CELL, printable
from evaluators.report.axes import Values
from evaluators.report.colours import colour_of
from evaluators.report.curves import (
    ACROSS,
    DASHES,
    GAP,
    LEFT,
    LEGEND,
    TITLE,
    WIDTH,
    Style,
    curve,
    frame,
    legend_of,
    panels_of,
)
from evaluators.report.curves import HEIGHT as PANEL_HEIGHT
from evaluators.report.figure import FOOT, HEAD, MARGIN, Drawing, text_at
from evaluators.report.samples import name_key
from evaluators.report.tables import Summary, in_percent
from evaluators.report.views import Headings, View, headings

Stream = tuple[str, str, str]  # a model, a data set and a protocol


def over_edits(rows: Sequence[Summary]) -> tuple[list[Summary], list[Summary]]:
    """Rows of models, data sets and protocols that have several numbers of edits, and the others."""
    numbers: dict[Stream, set[int]] = defaultdict(set)
    for row in rows:
        numbers[_stream(row)].add(row.edits)
    several = [row for row in rows if len(numbers[_stream(row)]) > 1]
    return several, [row for row in rows if len(numbers[_stream(row)]) == 1]


def edit_curves(rows: Sequence[Summary], view: View, top: int = 0) -> Drawing:
    """A block for each model, data set and protocol, from this height on: of main metrics that are shares, or of the
    paper's."""
    called = headings([row for row in rows if in_percent(row.metric)], view)
    streams: dict[Stream, list[Summary]] = defaultdict(list)
    for row in rows:
        if (row.dataset, row.metric) in called:
            streams[_stream(row)].append(row)
    parts, start, across = list[str](), top, 0
    for stream in sorted(streams):
        height, drawn = _block(stream, streams[stream], called, top)
        parts += drawn
        top += height
        across = max(across, min(ACROSS, len(panels_of(streams[stream], called))))
    return Drawing(2 * MARGIN + across * (LEFT + WIDTH + GAP) - GAP if parts else 0, top - start, parts)


def _stream(row: Summary) -> Stream:
    return row.model, row.dataset, row.protocol


def _block(stream: Stream, rows: Sequence[Summary], called: Headings, top: int) -> tuple[int, list[str]]:
    """The panels of one stream below its title, and how high they are."""
    values = Values.of("edits", sorted({row.edits for row in rows}), log=1)
    styles = _styles({row.editor for row in rows})
    model, dataset, protocol = stream
    cases = max(row.n for row in rows)
    title = (f"{model}, {dataset}: {protocol}, up to {cases} cases; % of cases right over the number of edits"
             f"{values.kind}, mean and 95 % interval")
    lines, legend = legend_of(list(styles.values()), top + HEAD - 20)
    parts = [text_at(MARGIN, top + 22, title, "soft"), *legend]
    first, each = top + HEAD - 20 + LEGEND * lines + TITLE, TITLE + PANEL_HEIGHT + FOOT + LEGEND
    panels = panels_of(rows, called)
    for number, panel in enumerate(panels):
        left, upper = MARGIN + LEFT + number % ACROSS * (LEFT + WIDTH + GAP), first + number // ACROSS * each
        parts += frame(panel, values.axis, left, upper)
        for editor, style in styles.items():
            at = [(left + WIDTH * values.place(row.edits), row) for row in rows
                  if row.editor == editor and called[row.dataset, row.metric] == panel]
            parts += curve(sorted(at, key=lambda pair: pair[0]), style, upper)
    return first - TITLE - top + -(-len(panels) // ACROSS) * each, parts


def _styles(editors: set[str]) -> dict[str, Style]:
    """Each editor in its colour; those that share one are told apart by their dashes."""
    used = Counter[str]()
    styles = {}
    for editor in sorted(editors, key=name_key):
        colour = colour_of(editor)
        styles[editor] = Style(printable(editor, CELL), colour, DASHES[used[colour] % len(DASHES)])
        used[colour] += 1
    return styles
