"""Costs: the paper's table 4 and figure 5, and what quality is to be had for which time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from evaluators.report.axes import linear, logarithmic
from evaluators.report.costs import GIB, PAPERS_MODEL, Cost, cost_tables
from evaluators.report.intervals import harmonic_mean
from evaluators.report.page.blocks import WAYS, Cell, Figure, Grid, Panel, name, of_editor, short
from evaluators.report.page.charts import PERCENT, At, bars, scatter, swatch
from evaluators.report.page.scores import Scores, metrics_of, where
from evaluators.report.paper import FIGURE_5, FIGURE_5_TRAINING
from evaluators.report.samples import UNEDITED, Setting, name_key

QUALITY = ("Reliability", "Generality", "Locality")
MEAN = "Quality is the harmonic mean of reliability, generality and locality"


def cost_grids(rows: Sequence[Cost], papers: Mapping[str, str]) -> Iterator[Grid]:
    """Table 4 and what is behind it, with the paper's columns where the model is its."""
    for grid in cost_tables(_named(rows, papers)):
        body = [[of_editor(line[0]), *map(name, line[1:])] for line in grid.body]
        yield Grid(f"Table 4: {grid.title}", grid.head, body, grid.names, grid.note)


def _named(rows: Sequence[Cost], papers: Mapping[str, str]) -> list[Cost]:
    """`cost_tables` knows the paper's model by its name alone: another of that name is not shown beside it."""
    return [replace(row, model=f"{row.model} (not the paper's)")
            if row.model == PAPERS_MODEL and papers.get(row.model) != PAPERS_MODEL else row for row in rows]


def memory(rows: Sequence[Cost], papers: Mapping[str, str]) -> Iterator[Figure | Grid]:
    """Figure 5: the peak of memory while editing, and what training took above it."""
    groups: dict[tuple[str, str, str, str], dict[str, dict[str, Cost]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        groups[row.model, row.dataset, row.device, row.dtype][row.editor][row.metric] = row
    for (model, dataset, device, dtype), found in groups.items():
        is_papers = papers.get(model) == PAPERS_MODEL
        drawn: list[tuple[str, float, float, float | None, float | None]] = []
        for editor in sorted(found, key=name_key):
            own = found[editor]
            most = own.get("cost.memory.device") or own.get("cost.memory.rss")
            if most is None:
                continue
            training = own.get("cost.training.memory")
            more = max(0.0, training.median - most.median) / GIB if training else 0.0
            drawn.append((editor, most.median / GIB, more, FIGURE_5.get(editor) if is_papers else None,
                          FIGURE_5_TRAINING.get(editor) if is_papers else None))
        if not drawn:
            continue
        longest = max(max(value + more, *(each or 0.0 for each in printed)) for _, value, more, *printed in drawn)
        title = f"{name(dataset).text} on {name(model).text} ({dtype}) by {name(device).text}"
        note = "GiB at the peak while editing; lighter: what training took above it" + (
            "; upright bars: the paper's, with and without training" if is_papers else "")
        yield Figure(f"Figure 5: {title}", [Panel(bars("Memory (GiB)", linear("GiB", longest), drawn),
                                                  "Memory of each editor, as in the table below")], note=note)
        yield Grid(f"Figure 5 in numbers: {title}", ["editor", "editing (GiB)", "training + (GiB)", *(
            ["paper (GiB)", "paper, with training"] if is_papers else [])],
            [[of_editor(editor), Cell(short(value), data={"gib": repr(value)}), Cell(short(more)),
              *([Cell(short(each) if each is not None else "-") for each in printed] if is_papers else [])]
             for editor, value, more, *printed in drawn], folded=True)


def pareto(scores: Scores, rows: Sequence[Cost]) -> Iterator[Figure | Grid]:
    """Seconds an edit against the harmonic mean of reliability, generality and locality: which editors no other beats
    in both. In numbers, too."""
    seconds: dict[tuple[str, str, str], Cost] = {}
    for row in rows:
        if row.metric == "cost.seconds":
            seconds.setdefault((row.model, row.dataset, row.editor), row)
    for setting, found in scores.of("single"):
        for way in WAYS:
            chosen = [metric for aspect, metric in metrics_of(found, way).items() if aspect in QUALITY]
            points = []
            for editor in sorted(found, key=name_key):
                cost = seconds.get((setting.model, setting.dataset, editor))
                means = [each.mean for metric in chosen if (each := found[editor].get(metric))]
                if cost is None or editor == UNEDITED or len(means) < len(QUALITY):
                    continue
                quality = float(harmonic_mean(np.array(means))[0])
                points.append((editor, At(cost.median / cost.edits, quality, quality, quality)))
            if points:
                yield from _pareto_blocks(setting, way, points)


def _pareto_blocks(setting: Setting, way: str, points: Sequence[tuple[str, At]]) -> Iterator[Figure | Grid]:
    front: list[At] = []
    for _, at in sorted(points, key=lambda point: (point[1].x, -point[1].y)):
        if not front or at.y > front[-1].y:
            front.append(at)
    drawing = scatter("Quality (%) against time", logarithmic("seconds an edit", [at.x for _, at in points]), PERCENT,
                      points, front)
    told = "; ".join(f"{editor} {at.x:.3g} s, {100 * at.y:.1f} %" for editor, at in points)
    title = f"{where(setting)}, {WAYS[way]}"
    yield Figure(f"Cost against quality: {title}", [Panel(drawing, told)],
                 [(editor, swatch(editor)) for editor, _ in points],
                 f"{MEAN}; no editor is both faster and better than those on the dashed line", way)
    body = [[of_editor(editor), Cell(short(at.x), data={"seconds": repr(at.x)}),
             Cell(f"{100 * at.y:.1f}", data={"mean": repr(at.y)}), name("yes" if at in front else "no")]
            for editor, at in points]
    yield Grid(f"Cost against quality in numbers: {title}",
               ["editor", "seconds an edit", "quality", "none faster and better"], body, way=way, folded=True,
               note=f"{MEAN}, in percent.")
