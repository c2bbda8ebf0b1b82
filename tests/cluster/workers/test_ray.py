"""Campaigns on a real, local Ray."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from itertools import groupby

import pytest
import ray
from support.campaigns import ROME

from cluster.campaign.spec import WorkerSpec
from cluster.driver import run_campaign
from cluster.exporter.latest import Latest
from cluster.exporter.server import Exporter
from cluster.log import logging_to
from cluster.scheduler.events import TaskDone, WorkerLost, WorkerUp
from cluster.store.store import Store
from cluster.workers.pool import RayPool, ray_pool
from editors.core.errors import InputError
from evaluators.report.costs import costs


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    """One local Ray for all tests here; `ray_pool` uses it and leaves it running."""
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
    yield
    ray.shutdown()


def run(planned, store, **spec):
    outcome = run_campaign(planned, store, lambda: ray_pool(store, WorkerSpec(**spec)))
    return outcome, store.rows(store.campaigns()[0].tasks)


def test_one_worker_and_two_leave_the_same_rows(make_plan, tmp_path):
    one, two = (Store.create(tmp_path / name) for name in ("one", "two"))
    outcome, rows = run(make_plan(), one, count=1)
    assert (outcome.done, outcome.failed) == (9, 0) and len(rows)
    again, same = run(make_plan(), two, count=2)
    assert again == outcome and same.equals(rows)
    assert ray.is_initialized()


def test_what_edits_cost_is_measured_by_workers_of_their_own(make_plan, tmp_path):
    store, log = Store.create(tmp_path / "store"), tmp_path / "log"
    planned = make_plan(editors=["identity", {"name": "rome", "config": ROME}],
                        protocols=["single", {"name": "efficiency", "edits": 2, "warm_up": 1, "repeats": 2}])
    with logging_to(log):
        outcome, rows = run(planned, store, count=1)
    assert (outcome.done, outcome.failed) == (9, 0)
    started = re.findall(r"task-start task=(\S+) worker=(\d+)", log.read_text())
    workers = {task: worker for task, worker in started}
    alone = [task for task, each in planned.tasks.items() if each.alone]
    assert len(alone) == 2
    for task in alone:
        assert [each for each, worker in started if worker == workers[task]] == [task]
    spent = {(row.editor, row.metric): row for row in costs(rows)}
    assert spent["rome", "cost.seconds"].n == 2 and spent["rome", "cost.seconds"].least > 0
    assert spent["rome", "cost.statistics.seconds"].median > 0 and spent["rome", "cost.seconds.cold"].n == 1
    assert spent["rome", "cost.flops"].median > spent["identity", "cost.flops"].median
    assert spent["rome", "cost.seconds"].dtype == "float32" and ("identity", "cost.statistics.seconds") not in spent
    phases = store.provenance(planned.tasks[alone[0]].key)["phases"]
    assert phases["edit"]["seconds"] > 0 and "score" not in phases


def test_cases_that_are_too_few_for_costs_are_refused(make_plan):
    with pytest.raises(InputError, match=r"protocols\[0\].*efficiency editing with 12 edits needs as many cases, and "
                                         r"data set 'testbed-cloze' has 4; raise its limit or lower the protocol's"):
        make_plan(protocols=["efficiency"])


def test_a_task_that_raises_is_given_up_with_its_traceback(make_plan, tmp_path):
    (tmp_path / "corpus.txt").write_text("short\n")
    planned = make_plan(statistics={"corpus": str(tmp_path / "corpus.txt"), "tokens": 10})
    (tmp_path / "corpus.txt").unlink()
    store = Store.create(tmp_path / "store")
    outcome, rows = run(planned, store, count=1)
    assert (outcome.done, outcome.failed) == (6, 3)
    assert set(rows["editor"].to_pylist()) == {"identity", "ft"}
    reasons = [failure.reason for failure in store.standing(store.campaigns()[0]).failures]
    assert any("Traceback" in reason and "corpus.txt" in reason for reason in reasons)


class Asking(Latest):
    """Somebody asks all the time; of every answer it keeps whose memory was told."""

    def __init__(self):
        super().__init__()
        self.told = []

    @property
    def wanted(self):
        return True

    @wanted.setter
    def wanted(self, wanted):
        pass

    def publish(self, snapshot):
        text = self.written(snapshot).decode()
        self.told.append(tuple(re.findall(r'worker_memory_bytes\{.*worker="(\d+)",memory="rss"\} \d{8,}', text)))


def test_a_killed_worker_is_replaced_and_its_series_end(make_plan, tmp_path, monkeypatch):
    store, asking = Store.create(tmp_path / "store"), Asking()
    events = []

    class Dangerous(RayPool):
        def assign(self, worker, task, parts):
            super().assign(worker, task, parts)
            if worker == 0 and len(events) > 1:  # it was done with a task, and told of its memory then
                ray.kill(self._actors[worker])

        def wait(self, seconds):
            events.extend(found := super().wait(seconds))
            return found

    monkeypatch.setattr("cluster.workers.pool.RayPool", Dangerous)
    outcome = run_campaign(make_plan(editors=["identity"]), store, lambda: ray_pool(store, WorkerSpec(count=1)),
                           exporter=Exporter((asking,)))
    assert (outcome.done, outcome.failed) == (4, 0)
    assert [type(event) for event in events] == [WorkerUp, TaskDone, WorkerLost, WorkerUp, *[TaskDone] * 3]
    assert events[2].reason and {event.worker for event in events[3:]} == {1}
    assert [told for told, _ in groupby(asking.told)] == [(), ("0",), (), ("1",)]


def wait_for(pool, number):
    """The next so many events of a pool."""
    events, deadline = [], time.monotonic() + 120
    while len(events) < number:
        assert time.monotonic() < deadline, f"only {events}"
        events += pool.wait(1)
    return events


@pytest.fixture
def pool(make_plan, tmp_path):
    planned = make_plan(datasets=[{"name": "testbed-cloze", "limit": 60}], chunk=20)
    with ray_pool(Store.create(tmp_path / "store"), WorkerSpec(count=1)) as pool:
        pool.tasks = [task for task in planned.tasks.values() if task.kind == "baseline"]
        pool.start(0)
        assert wait_for(pool, 1) == [WorkerUp(0)]
        yield pool


def test_nothing_is_heard_of_a_retired_worker(pool):
    pool.assign(0, pool.tasks[0], 1)
    pool.retire(0)
    assert pool.wait(2) == []


def test_parts_of_a_task_are_told_in_its_provenance(pool):
    pool.assign(0, pool.tasks[0], 2)
    wait_for(pool, 1)
    assert pool._store.provenance(pool.tasks[0].key)["parts"] == 2


def test_workers_of_another_version_are_turned_away(make_plan, tmp_path, monkeypatch):
    monkeypatch.setattr("cluster.workers.pool.code_version", lambda: "code 0123, torch 9")
    with pytest.raises(InputError, match=r"has another version: code .*; here it is code 0123, torch 9\. Install"):
        run(make_plan(editors=["identity"]), Store.create(tmp_path / "store"))


def test_workers_that_cannot_see_the_store_end_the_campaign(make_plan, tmp_path):
    store, elsewhere = Store.create(tmp_path / "store"), Store(tmp_path / "on another node")
    planned = make_plan(editors=["identity"], retries={"max_failed_starts": 2})
    outcome = run_campaign(planned, store, lambda: ray_pool(elsewhere, WorkerSpec(count=1)))
    assert outcome.failed == 4 and outcome.abandoned
    [failure, *_] = store.standing(store.campaigns()[0]).failures
    assert "there is no store" in failure.reason


def test_a_cluster_that_runs_already_is_used_and_left_running(write_campaign, tmp_path):
    arguments = ["run", write_campaign(editors=["identity"]), "--workers", 1, "--out", tmp_path / "store", "--address"]
    command = [sys.executable, "-m", "jobs.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    address = ray.get_runtime_context().gcs_address
    result = subprocess.run([*command, address], env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and "4 of 4 tasks done" in result.stdout, result.stdout + result.stderr
    assert ray.get(ray.put("alive")) == "alive" and ray.nodes()[0]["Alive"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_a_cluster_that_cannot_be_reached_is_refused(tmp_path, monkeypatch, address):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=f"cannot connect to Ray at '{address}'"), \
            ray_pool(Store.create(tmp_path / "store"), WorkerSpec(), address):
        pass


@pytest.mark.parametrize("spec", [{"cpus": 64}, {"gpus": 1}, {"gpus": 1, "count": 1}])
def test_a_worker_that_fits_nowhere_is_refused(make_plan, tmp_path, spec):
    store = Store.create(tmp_path / "store")
    with pytest.raises(InputError, match="no node has room for a worker of"):
        run(make_plan(editors=["identity"]), store, **spec)


def test_as_many_workers_as_there_is_room_for(tmp_path):
    store = Store.create(tmp_path / "store")
    assert RayPool(store, WorkerSpec()).room == 2
    assert RayPool(store, WorkerSpec(cpus=2)).room == 1
    assert RayPool(store, WorkerSpec(count=5)).room == 5
