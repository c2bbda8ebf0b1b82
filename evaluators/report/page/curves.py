"""Figures 6 and 7: what becomes of edits as there are more of them, made as one or one after another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from evaluators.report.axes import Axis, Values, logarithmic
from evaluators.report.page.blocks import WAYS, Cell, Figure, Grid, Panel, estimate, of_editor
from evaluators.report.page.charts import PERCENT, At, lines, swatch
from evaluators.report.page.scores import Scores, metrics_of, where
from evaluators.report.samples import Setting, name_key
from evaluators.report.tables import Summary, in_percent
from evaluators.scoring.measures import all_metrics

NEWEST = ("Newest are the edits since the length before, asked right after each was made; what they are above all "
          "edits so far is forgotten")
Curves = Mapping[int, Mapping[str, Mapping[str, Summary]]]  # by number of edits, editor and metric


def growing(scores: Scores, protocol: str, title: str) -> Iterator[Figure]:
    """A figure for each model and data set in each way that answers are taken: a panel for each aspect, over the number
    of edits."""
    for place, curves in _places(scores, protocol):
        for way in WAYS:
            chosen = metrics_of(_flat(curves), way)
            panels = [_panel(aspect, metric, curves) for aspect, metric in chosen.items()]
            if panels:
                yield Figure(f"{title}: {where(place)}, {WAYS[way]}", panels, legend(curves),
                             "Means in percent over the number of edits (logarithmic), in bands of their 95 % "
                             "intervals; paper: no numbers are printed", way)


def collapse(scores: Scores) -> Iterator[Figure | Grid]:
    """Whether the model still is one: perplexity of text, edits that are not finite; and whether edits that held right
    after they were made still do. In numbers, too."""
    for place, curves in _places(scores, "sequential"):
        known = {metric for row in _flat(curves).values() for metric in row}
        for way in WAYS:
            told = {"Perplexity of text": "perplexity", "Edits that diverged": "edit.diverged",
                    "Newest edits, reliability": f"newest.reliability.{way}",
                    "All edits so far, reliability": f"reliability.{way}",
                    "Newest edits, generality": f"newest.generality.{way}",
                    "All edits so far, generality": f"generality.{way}",
                    "Other text, locality": f"locality.unrelated.{way}"}
            chosen = {heading: metric for heading, metric in told.items()
                      if metric in known and (metric != "edit.diverged" or _any(curves, metric))}
            if f"reliability.{way}" not in known:
                continue
            title = f"{where(place)}, {WAYS[way]}"
            yield Figure(f"Collapse and forgetting: {title}",
                         [_panel(heading, metric, curves) for heading, metric in chosen.items()], legend(curves),
                         NEWEST, way)
            rows = [[of_editor(editor), Cell(f"{edits:,}"),
                     *(estimate(curves[edits][editor].get(metric)) for metric in chosen.values())]
                    for editor, _ in legend(curves) for edits in sorted(curves) if editor in curves[edits]]
            yield Grid(f"Collapse and forgetting in numbers: {title}", ["editor", "edits", *chosen], rows, 2,
                       f"{NEWEST}.", way, folded=True)


def legend(curves: Curves) -> list[tuple[str, str]]:
    editors = {editor for found in curves.values() for editor in found}
    return [(editor, swatch(editor)) for editor in sorted(editors, key=name_key)]


def _places(scores: Scores, protocol: str) -> Iterator[tuple[Setting, Curves]]:
    groups: dict[Setting, dict[int, Mapping[str, Mapping[str, Summary]]]] = defaultdict(dict)
    for setting, found in scores.of(protocol):
        groups[setting._replace(edits=1)][setting.edits] = found
    yield from groups.items()


def _flat(curves: Curves) -> dict[str, Mapping[str, Summary]]:
    return {f"{editor} {edits}": row for edits, found in curves.items() for editor, row in found.items()}


def _any(curves: Curves, metric: str) -> bool:
    return any(row[metric].mean > 0 for row in _flat(curves).values() if metric in row)


def _panel(heading: str, metric: str, curves: Curves) -> Panel:
    series: dict[str, list[At]] = defaultdict(list)
    for edits in sorted(curves):
        for editor, row in curves[edits].items():
            if found := row.get(metric):
                series[editor].append(At(edits, found.mean, found.low, found.high))
    shown = sorted(series.items(), key=lambda item: name_key(item[0]))
    across = Values.of("edits", sorted(curves), log=1).axis
    up = PERCENT if in_percent(metric) else _up(metric, [at for _, points in shown for at in points])
    unit = all_metrics()[metric].unit if metric in all_metrics() else ""
    return Panel(lines(f"{heading} ({'%' if in_percent(metric) else unit})", across, up, shown),
                 f"{heading} of each editor ({metric}) after {', '.join(map(str, sorted(curves)))} edits")


def _up(metric: str, points: Sequence[At]) -> Axis:
    return logarithmic(metric, [value for at in points for value in (at.y, at.low, at.high) if math.isfinite(value)])
