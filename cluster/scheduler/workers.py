"""The workers of a campaign, as the scheduler sees them: what each holds and is at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class WorkerState:
    """One worker. It holds the model of the last task that it was given, and is best at more of its `group`."""

    up: bool = False
    group: str | None = None
    task: str | None = None
    #: When it was given its task, by the campaign's clock.
    since: float = 0.0


class WorkerTable:
    """All workers, by numbers that are not used again. Each is starting, idle, or busy with one task."""

    def __init__(self) -> None:
        self._states: dict[int, WorkerState] = {}
        self._added = 0
        #: All and only workers that are up and have no task, those without one for longest first.
        self.idle: dict[int, None] = {}
        #: How many workers are at each group, or were last; under None, how many have had no task yet.
        self.holders: Counter[str | None] = Counter()
        #: How many workers are up, idle or busy.
        self.up = 0

    @property
    def states(self) -> Mapping[int, WorkerState]:
        return self._states

    def add(self) -> int:
        """A new worker, that is not up yet."""
        number, self._added = self._added, self._added + 1
        self._states[number] = WorkerState()
        self.holders[None] += 1
        return number

    def came_up(self, number: int) -> None:
        self._states[number].up = True
        self.up += 1
        self.idle[number] = None

    def remove(self, number: int) -> WorkerState:
        """Strikes a worker off; what it was."""
        worker = self._states.pop(number)
        self.holders[worker.group] -= 1
        self.up -= worker.up
        self.idle.pop(number, None)
        return worker

    def give(self, number: int, task: str, group: str, now: float) -> None:
        """An idle worker has a task of a group."""
        worker = self._states[number]
        self.holders[worker.group] -= 1
        self.holders[group] += 1
        worker.task, worker.group, worker.since = task, group, now
        del self.idle[number]

    def free(self, number: int) -> None:
        """A busy worker is done with its task, however that went."""
        self._states[number].task = None
        self.idle[number] = None
