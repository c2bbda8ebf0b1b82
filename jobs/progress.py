"""How far something is, shown in one way by all commands: a live bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from editors.core.printable import printable
from jobs.console import console

INTERVAL = 5.0  # seconds between lines where there is no terminal for a bar
MEMORY = 3600.0  # seconds whose speed tells the time that is left: tasks take a minute each


class Tell(Protocol):
    """Takes a line that says how far it is, and so much `done` of the `total`, for the length of the bar."""

    def __call__(self, line: str, done: float, total: float | None) -> None: ...


@contextmanager
def progress(screen: Console, interval: float = INTERVAL) -> Iterator[Tell]:
    """Yields what to call with all progress. Without a terminal a line is shown when `interval` seconds have passed
    since the one before, and the last is always shown."""
    if not screen.is_terminal:
        lines = _Lines(screen, interval)
        try:
            yield lines
        finally:
            lines.show()
        return
    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(), TextColumn("left"),
               TimeRemainingColumn())
    with Progress(*columns, console=screen, speed_estimate_period=MEMORY) as bars:
        bar = bars.add_task("", total=None)
        yield lambda line, done, total: bars.update(bar, description=printable(line), completed=done, total=total)


@contextmanager
def saying() -> Iterator[Callable[[str], None]]:
    """Yields what to call with what goes on, for commands whose output is something else: it is shown on standard
    error, at once, and at the end how long all of it took."""
    started = time.monotonic()
    with progress(console(stderr=True), interval=0) as tell:
        yield lambda line: tell(line, 0, None)
        tell(f"done in {time.monotonic() - started:.0f} s", 1, 1)


class _Lines:
    def __init__(self, screen: Console, interval: float) -> None:
        self.screen, self.interval = screen, interval
        self.waiting, self.shown, self.due = "", "", float("-inf")

    def __call__(self, line: str, done: float, total: float | None) -> None:
        self.waiting = line
        if time.monotonic() >= self.due:
            self.show()

    def show(self) -> None:
        if self.waiting != self.shown:
            self.screen.print(self.waiting, soft_wrap=True)
            self.shown, self.due = self.waiting, time.monotonic() + self.interval
