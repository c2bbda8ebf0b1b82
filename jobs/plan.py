"""`editfleet plan`: what a campaign would do, without doing it.

    python -m jobs.plan quickstart
    python -m jobs.plan paper --devices 8xV100-32GB
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from cluster.plan.budget import budget
from cluster.plan.costs import SMALL
from cluster.plan.devices import Devices, parse_devices
from cluster.plan.forecast import Forecast, forecast
from cluster.plan.known import Knowledge, told
from cluster.plan.memory import REFERENCE, memory_of
from cluster.plan.planner import Plan
from cluster.plan.sources import Assumed
from cluster.store.store import CampaignRecord, Standing, Store
from editors.core.memory import GIB
from jobs.budget import expectation, hours_table, placement_lines, show_hours
from jobs.console import (
    RESULTS,
    CampaignName,
    Data,
    Scale,
    Screen,
    Set,
    Workers,
    console,
    count,
    exit_codes,
    is_store,
    kinds,
    list_skipped,
    plan_campaign,
    tasks_table,
)

MIB = 2**20


def plan(
    campaign: CampaignName,
    out: Annotated[str | None, typer.Option(
        help="A store: tells what is done already. Without it: results/NAME, where there is one.")] = None,
    workers: Workers = None,
    scale: Scale = None,
    data: Data = None,
    set: Set = None,
    devices: Annotated[str | None, typer.Option(
        help="Devices that it might be run on, such as 8xV100-32GB: tells what it costs there. Models and files that "
             "are not at hand are assumed.")] = None,
) -> None:
    """Check a campaign, and tell its tasks, how long they will take and where its models fit; needs no cluster."""
    with exit_codes():
        assumed = None if devices is None else Assumed()
        there = None if devices is None else parse_devices(devices)
        planned = plan_campaign(campaign, scale, data, set, assumed)
        usual = RESULTS / planned.campaign.name
        place = (str(usual) if is_store(usual) else None) if out is None else out
        store = Store.open(place) if place is not None and Store.occupied(place) else None
        if store and planned.is_open and assumed is None:
            planned = planned.settled(Knowledge(store))
        record = planned.record(datetime.now(UTC))
        standing = None
        if place is not None:
            standing = store.standing(record) if store else Standing(frozenset(), ())
        left = forecast(planned.tasks, standing.done if standing else (), store)
        screen = console()
        if assumed is not None and there is not None:
            _tell_costs(screen, planned, left, there, assumed)
            return
        screen.print(tasks_table(record, standing, _hours_by_kind(planned, record, left)))
        if place is not None and out is None:
            screen.print(f"What is done is in {place}", soft_wrap=True)
        for line in _expectation(planned, left, workers or planned.campaign.workers.count or 1):
            screen.print(line, soft_wrap=True)
        screen.print(_memory_table(planned, planned.campaign.workers.memory or REFERENCE))
        for line in (*_complaints(planned), *list_skipped(record)):
            screen.print(line, soft_wrap=True)


def _tell_costs(screen: Screen, planned: Plan, left: Forecast, devices: Devices, assumed: Assumed) -> None:
    found = budget(planned, devices, left.seconds)
    screen.print(tasks_table(planned.record(datetime.now(UTC)), None))
    if left.seconds:
        screen.print(hours_table(found, devices, list(planned.models)))
    for line in expectation(found, devices, len(left.seconds)):
        screen.print(line, soft_wrap=True)
    screen.print(_memory_table(planned, devices.device.memory))
    for line in (*placement_lines(planned, found, devices), *(line for each in planned.known for line in told(each))):
        screen.print(line, soft_wrap=True)
    if assumed.told:
        screen.print("Assumed, as it is not at hand; the ids of tasks are provisional, and this plan cannot be run:")
    for line in assumed.told:
        screen.print(f"  {line}", soft_wrap=True)


def _hours_by_kind(planned: Plan, record: CampaignRecord, left: Forecast) -> dict[str, list[str]]:
    """Hours of what is left on one worker, and what tells them."""
    hours, told = [], []
    for kind in kinds(record):
        tasks = {task.id for task in record.tasks if task.kind == kind} & left.seconds.keys()
        known = len(tasks & left.measured)
        hours.append(show_hours(sum(left.seconds[task] for task in tasks) / 3600))
        told.append("" if not tasks else "measured" if known == len(tasks) else "estimated" if not known
                    else f"measured for {known} of {len(tasks)}, else estimated")
    return {"hours left": hours, "told by": told}


def _expectation(planned: Plan, left: Forecast, workers: int) -> Iterator[str]:
    if not left.seconds:
        yield "All tasks are done."
        return
    most = "At most " if planned.is_open else ""
    yield (f"{most}{count(len(left.seconds), 'task')} left: about {show_hours(left.hours(workers))} hours on "
           f"{count(workers, 'worker')}, at least {show_hours(left.chain / 3600)} on any number of them")
    if len(left.measured) < len(left.seconds):
        small = {task.model.shape.parameters < SMALL for task in planned.tasks.values()}
        devices = [device for device, shown in (("one CPU core", True in small),
                                                ("a V100 in half precision", False in small)) if shown]
        yield f"Estimates are for {' and '.join(devices)} a worker, and may be wrong by a factor of two or three"


def _memory_table(planned: Plan, memory: float) -> Table:
    """What a worker needs for each model, and where it fits with so many GiB on a device."""
    table = Table("GiB a worker", "weights", "held", "at work", "in all", f"with {memory:g} GiB a device")
    for name, model in planned.models.items():
        need = memory_of(model, planned.tasks.values())
        cells = (need.weights, need.held, need.work, need.on_each())
        table.add_row(f"{name} ({model.dtype})", *map(_size, cells), need.placement(memory))
    return table


def _size(size: int) -> str:
    """Bytes in GiB; in MiB where they would round to no GiB."""
    return f"{size / GIB:.1f}" if size == 0 or size / GIB >= 0.05 else f"{max(1, round(size / MIB))} MiB"


def _complaints(planned: Plan) -> Iterator[str]:
    for name, model in planned.models.items():
        if complaint := memory_of(model, planned.tasks.values()).complaint(name, planned.campaign.workers):
            yield f"Warning: {complaint}"


if __name__ == "__main__":
    from jobs.cli import main

    main("plan")
