"""`editfleet plan`: what a campaign would do, without doing it.

    python -m jobs.plan quickstart --out results
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.console import CampaignName, Data, Scale, console, exit_codes, list_skipped, plan_campaign, tasks_table


def plan(
    campaign: CampaignName,
    out: Annotated[str | None, typer.Option(help="A store: tells what is done already.")] = None,
    scale: Scale = None,
    data: Data = None,
) -> None:
    """Check a campaign and list its tasks, and what is done of them already."""
    with exit_codes():
        from datetime import UTC, datetime

        from cluster.store import Standing, Store

        record = plan_campaign(campaign, scale, data).record(datetime.now(UTC))
        standing = None
        if out is not None:
            standing = Store.open(out).standing(record) if Store.occupied(out) else Standing(frozenset(), ())
        screen = console()
        screen.print(tasks_table(record, standing))
        for line in list_skipped(record):
            screen.print(line, soft_wrap=True)


if __name__ == "__main__":
    typer.run(plan)
