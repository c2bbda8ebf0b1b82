"""`editfleet search`: better settings of an editor, and whether they beat its preset.

    python -m jobs.search ft-search
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from cluster.campaign.files import missing_files_told
from cluster.driver import Pool, Progress, run_campaign
from cluster.plan.planner import Plan
from cluster.plan.proposals import Proposer
from cluster.plan.trials import FOUND, Trial, Trials, spelt
from cluster.store.store import Store
from evaluators.report.costs import parted
from evaluators.report.grids import Grid, grids_to_rich
from jobs.console import (
    FAILED,
    SHOWN,
    Address,
    CampaignName,
    Data,
    Log,
    Scale,
    Screen,
    Set,
    Workers,
    console,
    count,
    exit_codes,
    read_campaign,
    shorten,
    warn,
)
from jobs.progress import Tell, progress
from jobs.running import connecting, describe_progress, results_kept, run_whole, show_summary


def search(
    campaign: CampaignName,
    out: Annotated[str | None, typer.Option(
        help="The store: a folder or URL (s3://BUCKET/FOLDER). Trials that it holds already are not run again. Without "
             "it: results/NAME, by the campaign's name.")] = None,
    address: Address = None,
    workers: Workers = None,
    scale: Scale = None,
    data: Data = None,
    set: Set = None,
    log: Log = None,
) -> None:
    """Search for better settings of one of a campaign's editors, by Optuna, on cases that the campaign is not judged
    on; then run the campaign with the best of them beside the preset. Ends with 1 where tasks failed, 2 for wrong
    input."""
    with exit_codes():
        screen = console()
        with screen.status("planning"):
            loaded = read_campaign(campaign, scale, data, set)
            with missing_files_told(loaded):
                trials = Trials.of(loaded)
            proposer = Proposer(trials.spaces, trials.search.seed, trials.objective.better)
        spec = loaded.workers if workers is None else loaded.workers.model_copy(update={"count": workers})
        with results_kept(out, loaded.name, log, screen) as store, progress(screen) as tell:
            run = _Runner(store, connecting(store, spec, address), tell)
            tried = _try(trials, proposer, run)
            best = trials.best(tried)
            if best is not None:
                planned = trials.outcome(best.settings)
                outcome, rows, standing = run_whole(planned, store, lambda: run(planned, loaded.name))
        _show_trials(screen, trials, tried)
        if best is None:
            warn("Every trial failed: there is nothing to choose from.")
            raise typer.Exit(FAILED)
        complete = show_summary(screen, store, planned.record(datetime.now(UTC)), rows, standing)
        screen.print(f"Best of {count(len(tried), 'trial')}: {best.label}", soft_wrap=True)
        preset = trials.editor.title
        for verdict in trials.objective.compare(parted(rows)[0], preset + FOUND, preset):
            screen.print(trials.objective.sentence(verdict, preset + FOUND, preset), soft_wrap=True)
        if outcome.failed or not complete:
            raise typer.Exit(FAILED)


@dataclass(frozen=True)
class _Runner:
    """Runs what is missing of a plan, and tells how far that is."""

    store: Store
    connect: Callable[[], AbstractContextManager[Pool]]
    tell: Tell

    def __call__(self, planned: Plan, line: str) -> Progress:
        return run_campaign(planned, self.store, self.connect, lambda now: self.tell(
            f"{line}: {describe_progress(now)}", now.cost_done, now.cost))


def _try(trials: Trials, proposer: Proposer, run: _Runner) -> list[Trial]:
    """Asks for settings, runs them unless the store has their results, and tells how they did, until all are tried."""
    tried: list[Trial] = []
    while left := trials.search.trials - len(tried):
        asked = proposer.ask(min(trials.search.parallel, left))
        planned = trials.plan([*(trial.settings for trial in tried), *asked])
        run(planned, f"trials {len(tried) + 1}-{len(tried) + len(asked)} of {trials.search.trials}")
        found = [trials.judge(planned, run.store, settings) for settings in asked]
        proposer.tell([trial.score for trial in found])
        tried += found
    return tried


def _show_trials(screen: Screen, trials: Trials, tried: Sequence[Trial]) -> None:
    """The best trials, and those that failed."""
    ranked = trials.ranked(tried)
    body = [[*map(spelt, trial.settings.values()), trials.objective.shown(trial.score)] for trial in ranked[:SHOWN]]
    head = [*trials.spaces, "score"]
    if ranked:
        title = f"the best of {count(len(tried), 'trial')} on other cases, by {trials.objective}"
        screen.print(*grids_to_rich([Grid(title, head, body, len(trials.spaces), "")]))
    if failed := [trial for trial in tried if trial.score is None]:
        screen.print(f"{count(len(failed), 'trial')} failed:")
        for line in shorten(f"  {trial.label}: {trial.reason}" for trial in failed):
            screen.print(line, soft_wrap=True)


if __name__ == "__main__":
    from jobs.cli import main

    main("search")
