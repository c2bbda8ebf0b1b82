"""The workers of a campaign, as the scheduler sees them: what each holds and is at."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Member:
    """`tasks` are those in flight, the one it is at first; `since` is when it began with that."""

    up: bool = False
    model: str | None = None
    tasks: deque[str] = field(default_factory=deque)
    since: float = 0.0
    recalled: bool = False


class WorkerTable:
    """Workers by number. Those that are up are `idle`, `busy` (they can be given a next task already) or `full`: they
    have `depth` tasks in flight, or one was recalled from them."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._members: dict[int, Member] = {}
        self._hired = 0
        self.idle: dict[int, None] = {}
        self.busy: dict[int, None] = {}
        self.full: dict[int, None] = {}
        #: How many workers hold a model (None: have none yet).
        self.holders: Counter[str | None] = Counter()

    @property
    def members(self) -> Mapping[int, Member]:
        return self._members

    @property
    def up(self) -> int:
        return len(self.idle) + len(self.busy) + len(self.full)

    def hire(self) -> int:
        """A new worker, that is not up yet. Numbers are not used again."""
        number, self._hired = self._hired, self._hired + 1
        self._members[number] = Member()
        self.holders[None] += 1
        return number

    def comes_up(self, number: int) -> None:
        self._members[number].up = True
        self._sort(number)

    def leaves(self, number: int) -> Member:
        """Strikes a worker off."""
        member = self._members.pop(number)
        self.holders[member.model] -= 1
        for group in (self.idle, self.busy, self.full):
            group.pop(number, None)
        return member

    def give(self, number: int, task: str, model: str, now: float) -> None:
        """A worker has a task more, after those it has."""
        member = self._members[number]
        self.holders[member.model] -= 1
        self.holders[model] += 1
        member.model = model
        if not member.tasks:
            member.since = now
        member.tasks.append(task)
        self._sort(number)

    def recall(self, number: int) -> str:
        """The last task of a worker, that is to be taken back if it has not begun."""
        self._members[number].recalled = True
        self._sort(number)
        return self._members[number].tasks[-1]

    def take_back(self, number: int, task: str, now: float) -> None:
        """A worker has nothing to do with a task any more."""
        member = self._members[number]
        if member.tasks[0] == task:
            member.since = now
        member.tasks.remove(task)
        member.recalled = False
        self._sort(number)

    def _sort(self, number: int) -> None:
        member = self._members[number]
        for group in (self.idle, self.busy, self.full):
            group.pop(number, None)
        if member.up:
            full = member.recalled or len(member.tasks) >= self._depth
            group = self.idle if not member.tasks else self.full if full else self.busy
            group[number] = None
