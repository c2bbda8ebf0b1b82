"""`editfleet status`: how far the campaigns in a store are.

    python -m jobs.status results
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console import console, count, exit_codes, list_failed, list_skipped, shorten, tasks_table

if TYPE_CHECKING:
    from cluster.store.store import Store


def status(store: Annotated[str, typer.Argument(help="The folder or URL given to `run` as --out.")]) -> None:
    """Show what is done, what failed and what is missing, for every campaign in a store."""
    with exit_codes():
        from cluster.store.store import Store

        found = Store.open(store)
        screen = console()
        for line in _running(found):
            screen.print(line, soft_wrap=True)
        for record in found.campaigns():
            standing = found.standing(record)
            screen.print(f"{record.name} ({record.digest[:8]}), last run {record.started:%Y-%m-%d %H:%M} UTC: "
                         f"{len(standing.done)} of {len(record.tasks)} tasks done", soft_wrap=True)
            screen.print(tasks_table(record, standing))
            for line in (*list_skipped(record), *list_failed(record, standing, found)):
                screen.print(line, soft_wrap=True)


def _running(store: Store) -> Iterator[str]:
    """Who runs a campaign into the store, and what its workers are at."""
    driver = store.driver()
    if driver is None:
        return
    if driver.surely_dead:
        yield f"{driver.campaign} was being run by {driver.who}, which is dead; running it again goes on"
        return
    state = driver.state
    starting = f", {state['starting']} coming up" if state.get("starting") else ""
    yield f"{driver.campaign} is being run by {driver.who}: {count(state.get('workers', 0), 'worker')}{starting}"
    yield from shorten(f"  worker {number}: {title}" for number, title in state.get("at", {}).items())


if __name__ == "__main__":
    typer.run(status)
