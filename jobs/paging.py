"""The page of a report, and its tables: what its stores hold, put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from cluster.store.errors import Damaged
from cluster.store.merging import Merged
from cluster.store.source import Source
from evaluators.report.page.about import About
from evaluators.report.page.page import write_page
from evaluators.report.page.sections import Measured, measure
from evaluators.report.sweeps import Point
from jobs.about import about
from jobs.console import warn_of_damaged


def write_report(folder: Path, sources: Sequence[Source], merged: Merged, points: Sequence[Point]) -> Path:
    """Writes the page of a campaign, or of several in different stores, into a folder, and gives its path; says what
    of the answers is damaged."""
    return write_page(folder, _about(sources), pa.concat_tables([merged.scores, merged.costs]), points,
                      _answers(sources))


def measured(sources: Sequence[Source], merged: Merged, points: Sequence[Point]) -> tuple[About, Measured]:
    """What the page tells, before it is one."""
    whole = _about(sources)
    return whole, measure(whole, pa.concat_tables([merged.scores, merged.costs]), points, _answers(sources))


def _about(sources: Sequence[Source]) -> About:
    return About.joined({source.letter: about(source) for source in sources})


def _answers(sources: Sequence[Source]) -> pa.Table | None:
    """What models said, of each task once; says what of it is damaged. None where nothing was kept."""
    asked, seen = list[pa.Table](), set[str]()
    for source in sources:
        damaged: list[Damaged] = []
        tasks = [task for task in source.record.tasks if task.id not in seen]
        seen |= {task.id for task in tasks}
        asked.append(source.store.answers(tasks, damaged))
        warn_of_damaged(source.store.place, damaged)
    whole = pa.concat_tables(asked)
    return whole if len(whole) else None
