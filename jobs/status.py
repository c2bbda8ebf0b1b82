"""`editfleet status`: how far the campaigns in a store are.

    python -m jobs.status results/quickstart
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console

from cluster.exporter.glance import told
from cluster.store.store import Store
from editors.core.errors import InputError
from jobs.console import (
    RESULTS,
    console,
    count,
    exit_codes,
    is_store,
    list_failed,
    list_skipped,
    shorten,
    tasks_table,
)


def status(store: Annotated[str | None, typer.Argument(
        help="The folder or URL given to `run` as --out; without it, all stores in `results`.")] = None) -> None:
    """Show what is done, what failed and what is missing, for every campaign in a store."""
    with exit_codes():
        screen = console()
        if store is not None:
            _show(Store.open(store), screen)
            return
        stores = [folder for folder in sorted(RESULTS.glob("*")) if is_store(folder)]
        if not stores:
            raise InputError(f"there is no store in '{RESULTS}'; name one: editfleet status STORE")
        for folder in stores:
            screen.print(f"{folder}:", soft_wrap=True)
            _show(Store.open(folder), screen)


def _show(found: Store, screen: Console) -> None:
    for line in _running(found):
        screen.print(line, soft_wrap=True)
    for record in found.campaigns():
        standing = found.standing(record)
        screen.print(f"{record.name} ({record.digest[:8]}), last run {record.started:%Y-%m-%d %H:%M} UTC: "
                     f"{len(standing.done)} of {len(record.tasks)} tasks done", soft_wrap=True)
        if record.tags:
            screen.print(f"tags: {', '.join(f'{name}: {value}' for name, value in record.tags.items())}",
                         soft_wrap=True)
        screen.print(tasks_table(record, standing))
        for line in (*list_skipped(record), *list_failed(record, standing, found)):
            screen.print(line, soft_wrap=True)
    if logs := found.logs():
        screen.print(f"log: {logs[-1]}" + (f" ({count(len(logs), 'file')})" if len(logs) > 1 else ""), soft_wrap=True)
    for line in shorten(found.strays()):
        screen.print(line, soft_wrap=True)


def _running(store: Store) -> Iterator[str]:
    """Who runs a campaign into the store, and what its workers are at."""
    driver = store.driver()
    if driver is None:
        return
    if driver.surely_dead:
        yield f"{driver.campaign} was being run by {driver.who}, which is dead; running it again goes on"
        return
    state = told(driver)
    starting = f", {state.starting} coming up" if state.starting else ""
    yield f"{driver.campaign} is being run by {driver.who}: {count(state.workers, 'worker')}{starting}"
    if state.metrics:
        yield f"  metrics: {state.metrics}"
    yield from shorten(f"  worker {number}: {title}" for number, title in state.at.items())


if __name__ == "__main__":
    from jobs.cli import main

    main("status")
