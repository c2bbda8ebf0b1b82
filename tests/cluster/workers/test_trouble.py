"""Campaigns in trouble, in this process: memory that does not suffice, damage, and stores that fail."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest
from support.campaigns import LocalPool

from cluster.driver import run_campaign
from cluster.scheduler.events import OutOfMemory, ResultDamaged, TaskFailed, WorkerLost
from cluster.store.errors import Damaged, StoreError
from cluster.store.store import Store
from editors.core.errors import InputError


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


class Troubled(LocalPool):
    """Before a task is begun, `trouble(task, parts)` may return what happens instead."""

    def __init__(self, store, trouble):
        super().__init__(store)
        self.trouble = trouble

    def wait(self, seconds):
        if self.queue and isinstance(self.queue[0], tuple) and (event := self.trouble(*self.queue[0])):
            self.queue.pop(0)
            return [event]
        return super().wait(seconds)


def run(planned, store, trouble):
    @contextmanager
    def connect():
        yield Troubled(store, trouble)

    return run_campaign(planned, store, connect)


def rows_of(store):
    return store.rows(store.campaigns()[0].tasks)


def values(rows):
    names = ("task", "case_id", "metric")
    return dict(zip(zip(*(rows[name].to_pylist() for name in names), strict=True), rows["value"].to_pylist(),
                    strict=True))


@pytest.fixture
def undisturbed(make_plan, tmp_path, local_pool):
    store = Store.create(tmp_path / "undisturbed")
    run_campaign(make_plan(), store, local_pool(store))
    return rows_of(store)


def test_tasks_that_are_too_large_are_done_in_parts_and_say_so(make_plan, store, undisturbed):
    planned = make_plan()
    outcome = run(planned, store, lambda worker, task, parts: OutOfMemory(worker, task.id, "no memory")
                  if task.pieces > 1 and parts == 1 else None)
    assert outcome.failed == 0
    assert values(rows_of(store)) == pytest.approx(values(undisturbed), abs=1e-5)
    parts = {store.provenance(task.key)["parts"] for task in planned.tasks.values() if task.kind == "score"}
    assert parts == {2}


def test_a_result_that_is_damaged_in_the_middle_is_made_again(make_plan, store, undisturbed):
    damaged = []

    def trouble(worker, task, parts):
        if task.kind != "score":
            return None
        if not damaged:
            [need, *_] = task.baselines
            path = store.local(need.key)
            damaged.append(path)
            path.write_bytes(path.read_bytes()[:-100])
        try:
            for need in task.baselines:
                store.read_table(need.key)
        except Damaged as error:
            return ResultDamaged(worker, task.id, error.key.id, str(error))
        return None

    outcome = run(make_plan(), store, trouble)
    assert (outcome.done, outcome.failed) == (outcome.tasks, 0) and rows_of(store).equals(undisturbed)
    assert damaged[0].exists() and len(list((damaged[0].parents[1] / "damaged").glob("*.parquet"))) == 1


@pytest.mark.parametrize("kind", ["raises", "dies"])
def test_a_store_that_was_deleted_ends_the_campaign_and_blames_no_task(make_plan, store, kind):
    def trouble(worker, task, parts):
        shutil.rmtree(store.root, ignore_errors=True)
        return TaskFailed(worker, task.id, "cannot write") if kind == "raises" else WorkerLost(worker, "cannot write")

    with pytest.raises(StoreError, match="was deleted or moved while it was used"):
        run(make_plan(), store, trouble)


def test_a_second_driver_is_refused_while_the_first_is_at_work(make_plan, store, monkeypatch):
    planned, refused = make_plan(), []
    monkeypatch.setattr("cluster.driver.REPORTING", 0.0)
    monkeypatch.setattr("cluster.driver.PULSE", 0.0)

    def trouble(worker, task, parts):
        if not refused:
            with pytest.raises(InputError, match="campaign 'small' is being run into store") as error:
                run_second(planned, store)
            refused.append(error)

    def run_second(planned, store):
        monkeypatch.setattr("cluster.store.lease.time.sleep", lambda seconds: renew())
        run_campaign(planned, store, lambda: None)

    def renew():
        record = store.driver()
        path = f"{store.root}/driver.json"
        with open(path, "w", encoding="utf-8") as file:
            file.write(record.model_copy(update={"counter": record.counter + 1}).model_dump_json())

    assert run(planned, store, trouble).failed == 0 and refused


def test_what_workers_are_at_is_told_while_they_are_at_it(make_plan, store, monkeypatch):
    monkeypatch.setattr("cluster.driver.REPORTING", 0.0)
    monkeypatch.setattr("cluster.driver.PULSE", 0.0)
    seen = []

    def trouble(worker, task, parts):
        seen.append(store.driver().state)

    run(make_plan(), store, trouble)
    assert any(state.get("at", {}).get("0", "").startswith("rome on tiny") for state in seen)
    assert seen[-1]["workers"] == 1 and seen[-1]["tasks"] == 9 and store.driver() is None
