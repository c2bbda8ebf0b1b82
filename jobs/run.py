"""`editfleet run`: do whatever of a campaign is not done yet, and show the results.

    python -m jobs.run quickstart --out results
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from jobs.console import (
    FAILED,
    CampaignName,
    Data,
    Scale,
    console,
    exit_codes,
    list_failed,
    list_skipped,
    plan_campaign,
)

if TYPE_CHECKING:
    from cluster.driver import Progress
    from cluster.store.store import CampaignRecord, Store

PLAIN_INTERVAL = 5.0  # seconds between lines where there is no terminal for a bar


def run(
    campaign: CampaignName,
    out: Annotated[str, typer.Option(help="The store: a folder or URL (s3://BUCKET/FOLDER) for results. What it "
                                      "holds already is not redone.")],
    address: Annotated[str | None, typer.Option(
        help="A Ray cluster to use; without it RAY_ADDRESS, else this machine.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of workers instead of the campaign's.")] = None,
    scale: Scale = None,
    data: Data = None,
    log: Annotated[Path | None, typer.Option(
        help="A file for one line per event; where there is no terminal, standard error has them.")] = None,
) -> None:
    """Run a campaign, or what is missing of it. Ends with 1 where tasks failed, 2 for wrong input."""
    with exit_codes():
        from datetime import UTC, datetime

        from cluster.driver import run_campaign
        from cluster.store.store import Store
        from cluster.workers.pool import ray_pool

        screen = console()
        with screen.status("planning"):
            planned = plan_campaign(campaign, scale, data)
            store = Store.create(out)
        spec = planned.campaign.workers
        if workers is not None:
            spec = spec.model_copy(update={"count": workers})
        try:
            with _logged(log, screen), _progress(screen) as watch:
                outcome = run_campaign(planned, store, lambda: ray_pool(store, spec, address), watch)
        except KeyboardInterrupt:
            typer.echo(f"What is done is kept; run the same command again to go on. Results: {out}", err=True)
            raise
        _summary(screen, store, planned.record(datetime.now(UTC)))
        if outcome.failed:
            raise typer.Exit(FAILED)


def _logged(log: Path | None, screen: Console) -> AbstractContextManager[None]:
    from cluster.log import logging_to

    return nullcontext() if log is None and screen.is_terminal else logging_to(log)


@contextmanager
def _progress(screen: Console) -> Iterator[Callable[[Progress], None]]:
    """Yields what to call with every progress: a live bar on a terminal, else a line now and then."""
    if not screen.is_terminal:
        yield _PlainLines(screen)
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("left"),
               TimeRemainingColumn())
    with Bars(*columns, console=screen, speed_estimate_period=3600) as bars:
        bar = None

        def watch(progress: Progress) -> None:
            nonlocal bar
            if bar is None:
                bar = bars.add_task("", total=progress.cost)
            bars.update(bar, completed=progress.cost_done, description=_describe(progress))

        yield watch


class _PlainLines:
    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._last, self._told = -PLAIN_INTERVAL, ""

    def __call__(self, progress: Progress) -> None:
        finished = progress.done + progress.failed == progress.tasks
        line = _describe(progress)
        if line != self._told and (finished or time.monotonic() - self._last >= PLAIN_INTERVAL):
            self._last, self._told = time.monotonic(), line
            self._screen.print(line)


def _describe(progress: Progress) -> str:
    failed = f", {progress.failed} failed" if progress.failed else ""
    return f"{progress.done}/{progress.tasks} tasks{failed}, {progress.edits_done}/{progress.edits} edits"


def _summary(screen: Console, store: Store, record: CampaignRecord) -> None:
    from evaluators.report.tables import summarise, to_rich_tables

    rows = store.rows(record.tasks)
    standing = store.standing(record)  # after reading, which finds what is damaged
    for table in to_rich_tables(summarise(rows)):
        screen.print(table)
    for line in (*list_skipped(record), *list_failed(record, standing, store)):
        screen.print(line, soft_wrap=True)
    screen.print(f"{len(standing.done)} of {len(record.tasks)} tasks done. Results: {store.root}", soft_wrap=True)


if __name__ == "__main__":
    typer.run(run)
