"""`editfleet watch`: a campaign while it runs.

    python -m jobs.watch results/quickstart
    python -m jobs.watch http://127.0.0.1:9464/metrics --once --json
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from cluster.exporter.glance import Glance
from cluster.store.lease import PATIENCE
from editors.core.errors import InputError
from editors.core.printable import in_json, printable
from jobs.console import FAILED, Screen, console, count, exit_codes, shorten
from jobs.looks import Look, ending, look

EVERY = 5.0  # seconds, as often as a driver tells its store


def watch(
    place: Annotated[str, typer.Argument(
        metavar="STORE|URL", help="The store that a campaign is run into, or the address of its metrics.")],
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each look as a line of JSON.")] = False,
    every: Annotated[float, typer.Option(min=1.0, help="Seconds between looks.")] = EVERY,
) -> None:
    """Watch a campaign until it ends: how far it is, its workers, what went wrong, its store and its newest means.

    Ends with 1 where it is not being run and was not done.
    """
    with exit_codes():
        screen = console()
        seen = look(place)
        if as_json:
            last = _as_json(place, seen, once, every)
        elif seen.standing != "running" or once:
            last = seen
            for line in lines(seen):
                screen.print(line, soft_wrap=True)
        else:
            last = (_live if screen.is_terminal else _in_lines)(screen, place, seen, every)
        if last.standing in ("dead", "stopped"):
            raise typer.Exit(FAILED)


def looks(place: str, first: Look, every: float) -> Iterator[tuple[Look, float]]:
    """Looks until the campaign is not running any more, each with the seconds since its driver was last heard of."""
    seen, heard = first, time.monotonic()
    while True:
        yield seen, time.monotonic() - heard
        if seen.standing != "running":
            return
        time.sleep(every)
        try:
            before, seen = seen, look(place)
        except InputError:  # it answered before: it has ended, or is slow for once
            if time.monotonic() - heard > PATIENCE:
                seen = seen.model_copy(update={"standing": "gone"})
            continue
        heard = time.monotonic() if seen.counter != before.counter else heard


def _as_json(place: str, first: Look, once: bool, every: float) -> Look:
    last = first
    for last, _ in [(first, 0.0)] if once else looks(place, first, every):
        typer.echo(in_json(last.model_dump_json()))
    return last


def _in_lines(screen: Screen, place: str, first: Look, every: float) -> Look:
    """A line for each look that found something new."""
    last, told = first, ""
    for last, silent in looks(place, first, every):
        if (line := lines(last, silent)[0]) != told:
            screen.print(line, soft_wrap=True)
            told = line
    return last


def _live(screen: Screen, place: str, first: Look, every: float) -> Look:
    last = first
    with Live(console=screen, auto_refresh=False, transient=True) as live:
        for last, silent in looks(place, first, every):
            bar = ProgressBar(total=1.0, completed=_share(last.glance), width=40)
            live.update(Group(bar, *(Text(printable(line), overflow="ellipsis", no_wrap=True)
                                     for line in lines(last, silent))), refresh=True)
    screen.print(lines(last)[0], soft_wrap=True)
    return last


# --- in words


def lines(seen: Look, silent: float = 0.0) -> list[str]:
    """A look in lines, the most important first; one alone where nobody runs the campaign."""
    if seen.standing != "running":
        return [ending(seen)]
    glance = seen.glance
    by = f" by {seen.driver}" if seen.driver else ""
    failed = f", {glance.failed} failed" if glance.failed else ""
    left = "" if glance.remaining is None else f", {lasting(glance.remaining)} left"
    quiet = f"; its driver was last heard of {lasting(silent)} ago" if silent > PATIENCE else ""
    told = [f"{seen.campaign}{by}: {glance.done}/{glance.tasks} tasks{failed}, {glance.edits_done}/{glance.edits} "
            f"edits, {_share(glance):.0%}{left}{quiet}",
            f"workers: {glance.workers} up" + (f", {glance.starting} coming up" if glance.starting else "")]
    told += shorten(f"  worker {number}: {title}{_for(glance.seconds.get(number))}"
                    for number, title in sorted(glance.at.items(), key=lambda at: -glance.seconds.get(at[0], 0.0)))
    told += [f"{what}: {', '.join(f'{number} {reason}' for reason, number in sorted(counts.items()))}"
             for what, counts in (("workers lost", glance.lost), ("tried again", glance.retries),
                                  ("went wrong", glance.failures)) if counts]
    told += _of_store(glance)
    if glance.metrics:
        told.append(f"metrics: {glance.metrics}")
    if glance.means:
        told.append("newest means:")
        told += shorten(f"  {mean.editor} on {mean.model}, {mean.dataset}, {mean.protocol} {mean.edits}: {mean.metric} "
                        f"{mean.mean:.1%} of {count(mean.n, 'score')}" for mean in glance.means)
    return told


def _of_store(glance: Glance) -> Iterator[str]:
    for operation, calls in sorted(glance.store.items()):
        if calls.calls:
            within = "more than 30 s" if calls.p95 is None else f"{calls.p95:g} s at most"
            errors = f", {calls.errors} failed" if calls.errors else ""
            yield (f"store, {operation}: {count(calls.calls, 'call')}, {1000 * calls.seconds / calls.calls:.3g} ms in "
                   f"the mean, 95 % {within}{errors}")


def _share(glance: Glance) -> float:
    """How much is done; of drivers that do not tell, by the number of tasks."""
    return glance.done / max(glance.tasks, 1) if glance.share is None else glance.share


def _for(seconds: float | None) -> str:
    return "" if seconds is None else f", for {lasting(seconds)}"


def lasting(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}" if seconds >= 10 * length else f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    typer.run(watch)
