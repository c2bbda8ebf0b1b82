"""What `editfleet plan --devices` tells: what a campaign costs on devices that nobody has yet."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from cluster.plan.budget import Budget, Group
from cluster.plan.devices import Devices
from cluster.plan.memory import memory_of
from cluster.plan.planner import Plan
from jobs.console import count

LARGEST = 3  # groups that are told to dominate


def show_hours(hours: float) -> str:
    return f"{hours:.{0 if hours >= 100 else 1 if hours >= 10 else 2 if hours >= 0.1 else 3}f}"


def hours_table(budget: Budget, devices: Devices, models: list[str]) -> Table:
    """Device-hours: a row for each editor, its training, and what editors share; a column for each model."""
    table = Table(f"{devices.device.name} hours", *models, "in all", "share")
    for work in dict.fromkeys(group.work for group in budget.by_group):
        cells = [budget.by_group.get(Group(work, model)) for model in models]
        whole = sum(filter(None, cells))
        table.add_row(work, *("" if cell is None else show_hours(cell) for cell in cells), show_hours(whole),
                      share(whole / budget.total))
    totals = [sum(hours for group, hours in budget.by_group.items() if group.model == model) for model in models]
    table.add_row("in all", *map(show_hours, [*totals, budget.total]), share(1))
    return table


def placement_lines(plan: Plan, budget: Budget, devices: Devices) -> Iterator[str]:
    placement, memory = budget.placement, devices.device.memory
    if not placement.chosen:
        yield f"Workers, as the campaign says: {placement}; each of the {devices.device.name} has {memory:g} GiB"
    else:
        yield (f"Workers: {placement}; the campaign leaves it open, so this is the first that holds all its models in "
               f"{memory:g} GiB. Write 'workers: {{{placement}, memory: {memory:g}}}' to run it so")
        for name, model in plan.models.items():
            alone = memory_of(model, plan.tasks.values()).placement(memory)
            if placement.devices > 1 and alone == "one device":
                yield f"{name} would fit on one device: a campaign of its own takes fewer hours for it"
    if placement.devices > 1 or placement.offload != "none":
        yield ("What gathering weights takes is not counted; devices of one worker compute the same, so that each of "
               "them counts")


def expectation(budget: Budget, devices: Devices, tasks: int) -> Iterator[str]:
    if not tasks:
        yield "All tasks are done."
        return
    yield (f"{count(tasks, 'task')} left: about {show_hours(budget.total)} {devices.device.name} hours; on {devices}, "
           f"{count(budget.workers, 'worker')}, about {show_hours(budget.hours)} hours, at least "
           f"{show_hours(budget.chain)} on any number of them")
    named = (f"{group.work} on {group.model} ({share(part)})" for group, part in budget.largest(LARGEST))
    yield f"What takes most: {', '.join(named)}"
    yield ("Hours are reckoned from the makers' figures, not measured, and may be wrong by a factor of two or three; "
           "small models take longer than that")


def share(part: float) -> str:
    return f"{100 * part:.{0 if part >= 0.0995 else 1}f} %"
