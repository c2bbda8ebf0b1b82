"""`editfleet status`: how far the campaigns in a store are.

    python -m jobs.status results
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.console import console, exit_codes, list_failed, list_skipped, tasks_table


def status(store: Annotated[str, typer.Argument(help="The folder or URL given to `run` as --out.")]) -> None:
    """Show what is done, what failed and what is missing, for every campaign in a store."""
    with exit_codes():
        from cluster.store import Store

        found = Store.open(store)
        screen = console()
        for record in found.campaigns():
            standing = found.standing(record)
            screen.print(f"{record.name} ({record.digest[:8]}), last run {record.started:%Y-%m-%d %H:%M} UTC: "
                         f"{len(standing.done)} of {len(record.tasks)} tasks done", soft_wrap=True)
            screen.print(tasks_table(record, standing))
            for line in (*list_skipped(record), *list_failed(record, standing, found)):
                screen.print(line, soft_wrap=True)


if __name__ == "__main__":
    typer.run(status)
