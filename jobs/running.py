"""What the commands share that run campaigns: workers, rounds until all results are there, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from rich.console import Console

from cluster.campaign.spec import WorkerSpec
from cluster.driver import Pool, Progress
from cluster.journal import kept_in
from cluster.log import logging_to
from cluster.plan.known import Knowledge
from cluster.plan.planner import Plan
from cluster.store.store import CampaignRecord, Standing, Store
from evaluators.report.costs import costs, parted
from evaluators.report.tables import summarise, to_rich_tables
from jobs.console import count, default_store, list_failed, list_skipped, warn

ROUNDS = 3  # of a campaign whose results are lost as soon as they are made


@contextmanager
def results_kept(out: str | None, campaign: str, log: Path | None, screen: Console) -> Iterator[Store]:
    """The store of a campaign, made where there is none. Until the block ends, all events are told in the log that was
    asked for and kept in the store; who interrupts it hears that what is done stays."""
    with nullcontext() if log is None and screen.is_terminal else logging_to(log):  # before there is a store
        store = Store.create(default_store(campaign) if out is None else out)
        try:
            with kept_in(store):
                yield store
        except KeyboardInterrupt:
            warn(f"What is done is kept; run the same command again to go on. Results: {store.place}")
            raise


def connecting(store: Store, spec: WorkerSpec, address: str | None) -> Callable[[], AbstractContextManager[Pool]]:
    """What starts workers once there is something for them to do."""
    def connect() -> AbstractContextManager[Pool]:
        from cluster.workers.pool import ray_pool  # loads Ray

        return ray_pool(store, spec, address)

    return connect


class Settled(NamedTuple):
    """The plan to run. `failed` is that of asking models for what they know, where it failed; `ended` is how it ended
    where there were no workers to ask, and then it is the plan itself."""

    plan: Plan
    failed: Plan | None = None
    ended: Progress | None = None


def settle(plan: Plan, store: Store, run: Callable[[Plan], Progress]) -> Settled:
    """The plan with the cases that models know, where data sets are kept to these: models are asked first. Where asking
    fails, those data sets are left out for those models."""
    if not plan.known:
        return Settled(plan)
    for _ in range(ROUNDS):
        plan = plan.settled(Knowledge(store))
        asking = plan.examination
        if not plan.is_open:
            store.drop_campaign(asking.record(datetime.now(UTC)).digest)  # all that it tells the plan does, too
            return Settled(plan)
        asked = run(asking)
        if asked.abandoned:
            return Settled(asking, asking, asked)
        if asked.failed:
            break
    return Settled(plan.settled(Knowledge(store, final=True)), asking)


def run_whole(plan: Plan, store: Store, run_once: Callable[[], Progress]) -> tuple[Progress, pa.Table, Standing]:
    """How a campaign ended, its rows, and which of its results are there: those that went missing or were damaged
    after they had been made are made again."""
    record = plan.record(datetime.now(UTC))
    for _ in range(ROUNDS):
        outcome = run_once()
        rows = store.rows(record.tasks)
        standing = store.standing(record)  # after reading, which finds what is damaged
        if not _lost(record, standing):
            break
    return outcome, rows, standing


def _lost(record: CampaignRecord, standing: Standing) -> int:
    return len(record.tasks) - len(standing.done) - len(standing.failures)


def describe_progress(progress: Progress) -> str:
    failed = f", {progress.failed} failed" if progress.failed else ""
    return f"{progress.done}/{progress.tasks} tasks{failed}, {progress.edits_done}/{progress.edits} edits"


def show_summary(screen: Console, store: Store, record: CampaignRecord, rows: pa.Table, standing: Standing) -> bool:
    """Shows the results; whether all of them are in the store, and any case was scored."""
    scores, spent = parted(rows)
    for table in to_rich_tables([*summarise(scores), *costs(spent)]):
        screen.print(table)
    for line in (*list_skipped(record), *list_failed(record, standing, store)):
        screen.print(line, soft_wrap=True)
    if lost := _lost(record, standing):
        screen.print(f"{count(lost, 'result')} went missing or were damaged again and again; does something else write "
                     "there? Running the campaign again makes them again", soft_wrap=True)
    if not rows.num_rows:
        screen.print("No case was scored.")
    screen.print(f"{len(standing.done)} of {len(record.tasks)} tasks done. Results: {store.place}", soft_wrap=True)
    return not lost and rows.num_rows > 0
