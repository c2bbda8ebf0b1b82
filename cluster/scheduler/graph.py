"""The tasks of a campaign: which is in what state, and which can be done next."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum
from graphlib import TopologicalSorter

from cluster.scheduler.events import TaskNode


class Status(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    SET_ASIDE = "set aside"


class TaskGraph:
    """Tasks with their needs, of which those that lack nothing can be taken, the longest chain first.

    `status` has exactly one status per task, and `open` counts those that are waiting or running.
    """

    def __init__(self, nodes: Iterable[TaskNode], done: Collection[str] = ()) -> None:
        self.nodes = {node.id: node for node in nodes}
        self.status = {task: Status.DONE if task in done else Status.WAITING for task in self.nodes}
        self.open = sum(status is Status.WAITING for status in self.status.values())
        self._dependents: dict[str, list[str]] = defaultdict(list)
        for node in self.nodes.values():
            for need in node.needs:
                self._dependents[need].append(node.id)
        self._priority = self._critical_paths()
        self._position = {task: place for place, task in enumerate(self.nodes)}
        #: Needs that are not done, of every task.
        self._missing = {node.id: sum(self.status[need] is not Status.DONE for need in node.needs)
                         for node in self.nodes.values()}
        #: Per model, a heap of all tasks that can be taken, and some that no longer can.
        self._ready: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
        self._in_heap: set[str] = set()
        for task in self.nodes:
            self._offer(task)

    def _critical_paths(self) -> dict[str, float]:
        """Cost of each task and of the longest chain of tasks that waits for it."""
        order = list(TopologicalSorter({node.id: node.needs for node in self.nodes.values()}).static_order())
        if unknown := [task for task in order if task not in self.nodes]:
            raise ValueError(f"tasks are needed that do not exist: {', '.join(unknown)}")
        paths: dict[str, float] = {}
        for task in reversed(order):
            paths[task] = self.nodes[task].cost + max((paths[after] for after in self._dependents[task]), default=0.0)
        return paths

    # --- taking tasks

    def models(self) -> list[tuple[tuple[float, int, str], str]]:
        """The models that there is something to do for, each after the most urgent of its tasks."""
        return [(heap[0], model) for model, heap in self._ready.items() if self._prune(heap)]

    def has_for(self, model: str | None) -> bool:
        return model in self._ready and bool(self._prune(self._ready[model]))

    def take(self, model: str) -> str:
        """The most urgent task of a model that there is something to do for; it is running from now on."""
        heap = self._prune(self._ready[model])
        task = heapq.heappop(heap)[-1]
        self._in_heap.discard(task)
        self.status[task] = Status.RUNNING
        return task

    def _prune(self, heap: list[tuple[float, int, str]]) -> list[tuple[float, int, str]]:
        while heap and not self._can_be_taken(heap[0][-1]):
            self._in_heap.discard(heapq.heappop(heap)[-1])
        return heap

    def _can_be_taken(self, task: str) -> bool:
        return self.status[task] is Status.WAITING and not self._missing[task]

    def _offer(self, task: str) -> None:
        if self._can_be_taken(task) and task not in self._in_heap:
            heapq.heappush(self._ready[self.nodes[task].model], (-self._priority[task], self._position[task], task))
            self._in_heap.add(task)

    # --- what becomes of tasks

    def done(self, task: str) -> None:
        """A running task is done."""
        self.status[task] = Status.DONE
        self.open -= 1
        for after in self._dependents[task]:
            self._missing[after] -= 1
            self._offer(after)

    def again(self, task: str) -> None:
        """A task has to be done again."""
        self.status[task] = Status.WAITING
        self._offer(task)

    def undo(self, task: str) -> None:
        """The result of a task that was done is lost. Follow it up with `again` or `set_aside`."""
        self.status[task] = Status.WAITING
        self.open += 1
        for after in self._dependents[task]:
            self._missing[after] += 1

    def set_aside(self, task: str, reason: str) -> Iterator[tuple[str, str]]:
        """Gives up a task that is not done and, in turn, what waits for it: yields each with its reason."""
        self.status[task] = Status.WAITING
        queue = deque([(task, reason)])
        while queue:
            task, reason = queue.popleft()
            if self.status[task] is Status.WAITING:
                self.status[task] = Status.SET_ASIDE
                self.open -= 1
                yield task, reason
                queue.extend((after, f"needs task {task}, which was set aside") for after in self._dependents[task])
