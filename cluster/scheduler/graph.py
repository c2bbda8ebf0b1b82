"""The tasks of a campaign: which have to be done at all, which is in what state, and which can be done next."""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from graphlib import TopologicalSorter
from typing import Literal, NamedTuple, Protocol

from cluster.scheduler.events import TaskNode


class Status(StrEnum):
    """What can be said of a task. Exactly those that are done have a result that is there."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    #: Without a result, or not any more, and no task that is to be done needs one.
    NOT_NEEDED = "not needed"
    GIVEN_UP = "given up"


#: How far tasks are for those who count them: waiting tasks that lack nothing are ready, and of what is not needed
#: nothing is left to do.
Stage = Literal["waiting", "ready", "running", "done", "set_aside"]
_STAGES: dict[Status, Stage] = {Status.WAITING: "waiting", Status.RUNNING: "running", Status.DONE: "done",
                                Status.NOT_NEEDED: "done", Status.GIVEN_UP: "set_aside"}


class Needing(Protocol):
    """What `cull` asks of a task; a node of the graph, a record in a store and a planned task all have it."""

    @property
    def id(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]: ...

    @property
    def temporary(self) -> bool: ...


class Culled(NamedTuple):
    """Ids of the tasks that are `to_do`; all others are done, or not needed. `leftover` are temporary results that are
    there and can be removed."""

    to_do: set[str]
    leftover: set[str]


def cull(tasks: Iterable[Needing], there: Collection[str]) -> Culled:
    """What has to be done where the results of these tasks are `there`: the sinks (tasks that no other needs) that lack
    a result, and whatever these need, directly or not, that lacks one."""
    by_id = {task.id: task for task in tasks}
    needed = {need for task in by_id.values() for need in task.needs}
    to_do = set[str]()
    queue = [task for task in by_id if task not in needed]
    while queue:
        task = queue.pop()
        if task not in there and task not in to_do:
            to_do.add(task)
            queue.extend(by_id[task].needs)
    in_use = {need for task in to_do for need in by_id[task].needs}
    return Culled(to_do, {task.id for task in by_id.values()
                          if task.temporary and task.id in there and task.id in needed - in_use})


class TaskGraph:
    """Tasks with their needs, of which those that lack nothing can be taken, the longest chain first.

    Raises `ValueError` for needs that do not exist, or that go round in a circle.
    """

    def __init__(self, nodes: Iterable[TaskNode], there: Collection[str] = ()) -> None:
        self.nodes = {node.id: node for node in nodes}
        self._dependents: dict[str, list[str]] = defaultdict(list)
        for node in self.nodes.values():
            for need in node.needs:
                self._dependents[need].append(node.id)
        #: Seconds, or whatever costs are in, of each task and the longest chain of tasks that waits for it.
        self._priority = self._critical_paths()
        self._position = {task: position for position, task in enumerate(self.nodes)}
        to_do, _ = cull(self.nodes.values(), there)
        #: Exactly one status per task. What an open task needs is done or open, or it is about to be given up.
        self.status = {task: Status.DONE if task in there else Status.WAITING if task in to_do else Status.NOT_NEEDED
                       for task in self.nodes}
        #: How many tasks are waiting or running.
        self.open = len(to_do)
        #: How many of its needs are not done, of every task.
        self._missing = {node.id: sum(self.status[need] is not Status.DONE for need in node.needs)
                         for node in self.nodes.values()}
        #: Per group, a heap of all tasks that can be taken, and some that no longer can.
        self._ready: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
        #: All and only tasks in these heaps.
        self._in_heap: set[str] = set()
        #: The time, in any seconds, as far as the graph was told.
        self.now = 0.0
        #: How many tasks of each kind are how far.
        self.counts: Counter[tuple[str, Stage]] = Counter()
        #: All and only tasks that are ready, and since when; those that have been so for longest first.
        self.ready: OrderedDict[str, float] = OrderedDict()
        for task in self.nodes:
            self._count(task, 1)
            self._offer(task)

    def _critical_paths(self) -> dict[str, float]:
        order = list(TopologicalSorter({node.id: node.needs for node in self.nodes.values()}).static_order())
        if unknown := [task for task in order if task not in self.nodes]:
            raise ValueError(f"tasks are needed that do not exist: {', '.join(unknown)}")
        paths: dict[str, float] = {}
        for task in reversed(order):
            paths[task] = self.nodes[task].cost + max((paths[after] for after in self._dependents[task]), default=0.0)
        return paths

    # --- taking tasks

    def groups(self) -> list[tuple[tuple[float, int, str], str]]:
        """The groups of tasks that there is something to do in, each after the most urgent of its tasks."""
        return [(heap[0], group) for group, heap in self._ready.items() if self._prune(heap)]

    def has_for(self, group: str) -> bool:
        return group in self._ready and bool(self._prune(self._ready[group]))

    def take(self, group: str) -> str:
        """The most urgent task of a group that there is something to do in; it is running from now on."""
        heap = self._prune(self._ready[group])
        task = heapq.heappop(heap)[-1]
        self._in_heap.discard(task)
        self._put(task, Status.RUNNING)
        return task

    def _prune(self, heap: list[tuple[float, int, str]]) -> list[tuple[float, int, str]]:
        while heap and not self._can_be_taken(heap[0][-1]):
            self._in_heap.discard(heapq.heappop(heap)[-1])
        return heap

    def _can_be_taken(self, task: str) -> bool:
        return self.status[task] is Status.WAITING and not self._missing[task]

    def _offer(self, task: str) -> None:
        if self._can_be_taken(task) and task not in self._in_heap:
            heapq.heappush(self._ready[self.nodes[task].group], (-self._priority[task], self._position[task], task))
            self._in_heap.add(task)

    # --- what becomes of tasks

    def _put(self, task: str, status: Status) -> None:
        """Every change of a status after the first."""
        self._count(task, -1)
        self.status[task] = status
        self._count(task, 1)

    def _count(self, task: str, change: int) -> None:
        """Counts a task, as it is just now, in or out."""
        stage = "ready" if (ready := self._can_be_taken(task)) else _STAGES[self.status[task]]
        self.counts[self.nodes[task].kind, stage] += change
        if ready and change > 0:
            self.ready[task] = self.now
        elif ready:
            del self.ready[task]

    def done(self, task: str) -> list[str]:
        """A running task is done. Returns the temporary results that no task needs any more; they count as gone."""
        self._put(task, Status.DONE)
        self.open -= 1
        self._tell_dependents(task, missing=-1)
        gone = [need for need in dict.fromkeys(self.nodes[task].needs)
                if self.nodes[need].temporary
                and all(self.status[after] in (Status.DONE, Status.NOT_NEEDED) for after in self._dependents[need])]
        for need in gone:
            self._put(need, Status.NOT_NEEDED)
            self._tell_dependents(need, missing=1)
        return gone

    def again(self, task: str) -> None:
        """A running task has to be done again."""
        self._put(task, Status.WAITING)
        self._offer(task)

    def lose(self, task: str) -> None:
        """The result of a task that was done is of no use. Follow it up with `reopen_needs` or `give_up`."""
        self._put(task, Status.WAITING)
        self.open += 1
        self._tell_dependents(task, missing=1)

    def reopen_needs(self, task: str) -> list[str]:
        """Of what a waiting task needs, directly or not, all that is gone has to be done again: returns these tasks."""
        found, queue = list[str](), deque(self.nodes[task].needs)
        while queue:
            need = queue.popleft()
            if self.status[need] is Status.NOT_NEEDED:
                self._put(need, Status.WAITING)
                self.open += 1
                found.append(need)
                queue.extend(self.nodes[need].needs)
        for each in (task, *found):
            self._offer(each)
        return found

    def give_up(self, task: str, reason: str) -> Iterator[tuple[str, str]]:
        """Gives up an open task and, in turn, what waits for it: yields each with its reason."""
        self._put(task, Status.WAITING)
        queue = deque([(task, reason)])
        while queue:
            task, reason = queue.popleft()
            if self.status[task] is Status.WAITING:
                self._put(task, Status.GIVEN_UP)
                self.open -= 1
                yield task, reason
                queue.extend((after, f"needs task {task}, which was given up") for after in self._dependents[task])

    def _tell_dependents(self, task: str, missing: int) -> None:
        """To all that need a task, so many more, or fewer, of their needs are not done."""
        for after in self._dependents[task]:
            self._count(after, -1)
            self._missing[after] += missing
            self._count(after, 1)
            self._offer(after)
