"""Who is asked of their memory, and when; without Ray's processes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cluster.exporter.gauges import WorkerMemory
from cluster.workers import memory
from cluster.workers.memory import ASKED_EVERY, AT_ONCE, MemoryWatch


class Workers:
    """Actors by number that answer, once they are `answering`; `asked` are those that were, in turn."""

    def __init__(self, number):
        self.asked, self.answering, self.now = [], set(), 100.0
        self.actors = {worker: SimpleNamespace(memory=SimpleNamespace(remote=lambda worker=worker: self.ask(worker)))
                       for worker in range(number)}

    def ask(self, worker):
        self.asked.append(worker)
        return worker

    def wait(self, refs, num_returns, timeout):
        assert timeout == 0
        return [ref for ref in refs if ref in self.answering], []


@pytest.fixture
def workers(monkeypatch):
    workers = Workers(30)
    monkeypatch.setattr(memory.ray, "wait", workers.wait)
    monkeypatch.setattr(memory.ray, "get", lambda worker: WorkerMemory(worker, 1000))
    monkeypatch.setattr(memory.time, "monotonic", lambda: workers.now)
    return workers


def test_a_few_are_asked_at_a_time_those_first_that_have_told_nothing_for_longest(workers):
    watch = MemoryWatch()
    for worker in range(20):
        watch.told(worker, WorkerMemory(5, 1000))  # with their tasks
    assert set(watch.latest(workers.actors)) == set(range(20))
    assert workers.asked == list(range(20, 20 + AT_ONCE))
    workers.answering = set(range(20, 25))
    assert watch.latest(workers.actors)[24] == WorkerMemory(24, 1000) and len(workers.asked) == AT_ONCE
    workers.now += ASKED_EVERY  # three are still waited for; two have never told anything, and some not since
    watch.told(0, WorkerMemory(6, 1000))
    watch.latest(workers.actors)
    assert workers.asked[AT_ONCE:] == [28, 29, 1, 2, 3]


def test_who_is_gone_is_told_of_no_more_and_waited_for_no_more(workers):
    watch = MemoryWatch()
    watch.told(0, WorkerMemory(5, 1000))
    watch.latest(workers.actors)
    assert 1 in workers.asked
    left = {worker: actor for worker, actor in workers.actors.items() if worker > 1}
    workers.answering = {1}
    assert watch.latest(left) == {} and 1 not in watch._asked.values()
