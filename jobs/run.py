"""`editfleet run`: do whatever of a campaign is not done yet, and show the results.

    python -m jobs.run quickstart
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cluster.driver import Progress, run_campaign
from cluster.exporter.server import LAST
from cluster.plan.planner import Plan
from jobs.console import (
    FAILED,
    Address,
    CampaignName,
    Data,
    Log,
    Scale,
    Set,
    Workers,
    console,
    exit_codes,
    list_failed,
    plan_campaign,
)
from jobs.exporting import exporting
from jobs.progress import progress
from jobs.running import connecting, describe_progress, results_kept, run_whole, settle, show_summary


def run(
    campaign: CampaignName,
    out: Annotated[str | None, typer.Option(
        help="The store: a folder or URL (s3://BUCKET/FOLDER) for results. What it holds already is not redone. "
             "Without it: results/NAME, by the campaign's name.")] = None,
    address: Address = None,
    workers: Workers = None,
    scale: Scale = None,
    data: Data = None,
    set: Set = None,
    log: Log = None,
    metrics_port: Annotated[int | None, typer.Option(
        min=1, max=LAST, help="Show metrics to Prometheus at this port, or the next free of ten.")] = None,
    metrics_bind: Annotated[str, typer.Option(
        help="The address that metrics are shown at; 0.0.0.0 shows them to everybody.")] = "127.0.0.1",
    metrics_sd: Annotated[Path | None, typer.Option(
        help="A file that tells Prometheus (file_sd) where metrics are, as long as they are there.")] = None,
    ray_metrics: Annotated[bool, typer.Option(
        "--ray-metrics", help="Show how far it is among Ray's own metrics, too.")] = False,
    tolerate: Annotated[bool, typer.Option(
        "--tolerate-failed-tasks", help="End with 0 though tasks were given up, once all others are done: for systems "
                                        "that start again what does not.")] = False,
) -> None:
    """Run a campaign, or what is missing of it. Ends with 1 where tasks failed, 2 for wrong input."""
    with exit_codes(), exporting(metrics_port, metrics_bind, metrics_sd, ray_metrics) as exporter:
        screen = console()
        if exporter is not None and exporter.address:
            screen.print(f"Metrics: {exporter.address}", soft_wrap=True)
        with screen.status("planning"):
            planned = plan_campaign(campaign, scale, data, set)
        spec = planned.campaign.workers
        if workers is not None:
            spec = spec.model_copy(update={"count": workers})
        with results_kept(out, planned.campaign.name, log, screen) as store, progress(screen) as tell:
            def run_once(plan: Plan, line: str = "") -> Progress:
                return run_campaign(
                    plan, store, connecting(store, spec, address),
                    lambda now: tell(line + describe_progress(now), now.cost_done, now.cost), exporter)

            settled = settle(planned, store, lambda asking: run_once(asking, "what models know: "))
            planned = settled.plan
            outcome, rows, standing = run_whole(planned, store, lambda: settled.ended or run_once(planned))
        complete = show_summary(screen, store, planned.record(datetime.now(UTC)), rows, standing)
        if settled.failed and not settled.ended:
            asking = settled.failed.record(datetime.now(UTC))
            for line in list_failed(asking, store.standing(asking), store):
                screen.print(line, soft_wrap=True)
        if not complete or outcome.abandoned or ((outcome.failed or settled.failed) and not tolerate):
            raise typer.Exit(FAILED)


if __name__ == "__main__":
    from jobs.cli import main

    main("run")
