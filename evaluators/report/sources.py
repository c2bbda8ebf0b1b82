"""Locality by where its questions come from: other subjects, the edited one, or anything else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evaluators.report.grids import Grid
from evaluators.report.tables import Summary, grid_of, in_protocols
from evaluators.scoring.metrics import LOCALITY

HOW = ".exact"  # whole answers as before the edit
SOURCES = {f"{name}{HOW}": what for name, what in LOCALITY.values()}


def source_grids(rows: Sequence[Summary]) -> Iterator[Grid]:
    """A table for each protocol that has locality of several sources: a row for each editor, a column for each source,
    and what the sources are below it."""
    for of_protocol in in_protocols([row for row in rows if row.metric in SOURCES]):
        found = [metric for metric in SOURCES if any(row.metric == metric for row in of_protocol)]
        if len(found) > 1:
            grid = grid_of(of_protocol, {(row.dataset, row.metric): row.metric for row in of_protocol})
            note = "; ".join(f"{metric.removesuffix(HOW)} is of {SOURCES[metric]}" for metric in found)
            yield grid._replace(title=f"locality by source, {grid.title}", note=note,
                                head=[head.removesuffix(HOW) for head in grid.head])
