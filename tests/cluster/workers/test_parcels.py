"""Tasks on their way to workers: they come as they were sent, and their cases are sent once."""

from __future__ import annotations

import pickle

import pytest

from cluster.workers.parcels import Packing, unpack
from evaluators.cases import Case


@pytest.fixture
def planned(make_plan):
    """Of every kind of task one at least: edits alone, in streams that need several baselines, and trained ones."""
    return make_plan(models=["testbed-gptj"], datasets=[{"name": "testbed-cloze", "limit": 48}], chunk=24,
                     editors=["identity", "mend", "rome"],
                     protocols=["single", {"name": "sequential", "lengths": [48]}])


class Kept(dict):
    """What was put, by a number that stands for it."""

    def put(self, content):
        self[len(self)] = content
        return len(self) - 1

    def arrived(self, parcel):
        return unpack(parcel.task, [self[each] if isinstance(each, int) else each for each in parcel.cases])


def test_every_task_comes_as_it_was_sent(planned):
    kept = Kept()
    packing = Packing(kept.put)
    assert {task.kind for task in planned.tasks.values()} == {"baseline", "statistics", "train", "stream", "score"}
    for task in planned.tasks.values():
        come = kept.arrived(packing.pack(task))
        assert come == task and come.identity() == task.identity()
        del come.__dict__["id"]
        assert come.id == task.id
        if task.kind in ("baseline", "score"):
            assert list(come.chunk.cases) == list(task.chunk.cases) and isinstance(come.chunk.cases[0], Case)
            assert (come.chunk.first, come.chunk.source) == (task.chunk.first, task.chunk.source)


def test_cases_are_sent_once_and_apart_from_tasks(planned):
    kept = Kept()
    packing = Packing(kept.put)
    parcels = [packing.pack(task) for task in planned.tasks.values()]
    chunks = {task.chunk.digest for task in planned.tasks.values() if task.kind in ("baseline", "score", "stream")}
    chunks |= {task.cases.digest for task in planned.tasks.values() if task.kind == "train"}
    assert len(kept) == len(chunks) < len(parcels)
    subject = next(iter(planned.tasks.values())).chunk.cases[0].subject.encode()
    assert any(subject in content for content in kept.values())
    assert not any(subject in parcel.task for parcel in parcels)
    score = next(task for task in planned.tasks.values() if task.kind == "score")
    assert len(packing.pack(score).task) < len(pickle.dumps(score)) / 8


def test_few_cases_travel_with_their_task(make_plan):
    kept = Kept()
    for task in make_plan().tasks.values():
        assert kept.arrived(Packing(kept.put).pack(task)) == task
    assert not kept


def test_no_more_is_kept_than_may_be_and_what_is_not_is_sent_again(planned):
    baselines = [task for task in planned.tasks.values() if task.kind == "baseline"]
    kept = Kept()
    most = len(kept[Packing(kept.put).pack(baselines[0]).cases[0]]) * 3 // 2  # one, but not two
    packing = Packing(kept.put, most)
    kept.clear()
    for task in (*baselines, *baselines, baselines[-1]):
        assert kept.arrived(packing.pack(task)) == task
        assert sum(size for _, size in packing._kept.values()) == packing._bytes <= most
    assert len(kept) == 2 * len(baselines) == 4


def test_cases_that_are_more_than_may_be_kept_travel_with_their_task(planned):
    kept = Kept()
    task = next(iter(planned.tasks.values()))
    assert kept.arrived(Packing(kept.put, 100).pack(task)) == task and not kept
