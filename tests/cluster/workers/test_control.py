"""A campaign whose Ray is gone ends with an error that says so, and soon."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from cluster.workers import control
from cluster.workers.control import Control, alive, is_gone, patiently
from cluster.workers.losses import ClusterLost

HOME = Path(__file__).parents[3]

# Kills one of the processes of a Ray of its own, and goes on as the driver does.
PROGRAM = """
import sys, psutil, typer
from cluster.campaign.spec import WorkerSpec
from cluster.store.store import Store
from cluster.workers import control, pool
from jobs.console import exit_codes

control.SILENCE = 2.0
victim, store = sys.argv[1:]
try:
    with exit_codes(), pool.ray_pool(Store.create(store), WorkerSpec(count=1)) as workers:
        workers.start(0)
        while not workers.wait(1.0):
            pass
        for process in psutil.Process().children(recursive=True):
            if process.name() == victim:
                process.kill()
        while True:
            workers.room
            workers.wait(0.2)
except typer.Exit as end:
    sys.exit(end.exit_code)
"""
# Loses a worker, or the leader of a gang, and the control service before it has looked at that.
LOSES_BOTH = """
import sys, time, types, psutil, ray
from support.processes import titled
from cluster.campaign.spec import WorkerSpec
from cluster.scheduler.events import WorkerLost
from cluster.store.store import Store
from cluster.workers.losses import ClusterLost
from cluster.workers.pool import ray_pool

store, devices = sys.argv[1], int(sys.argv[2])
with ray_pool(Store.create(store), WorkerSpec(count=1, cpus=1, devices=devices, gpus=0)) as workers:
    workers.start(0)
    while not workers.wait(1.0):
        pass
    [worker] = map(psutil.Process, titled("ray::Worker"))
    worker.suspend()
    workers.assign(0, types.SimpleNamespace(id="task"), 1)
    worker.kill()
    [lost] = workers._calls
    ray.wait([lost])
    [service] = [child for child in psutil.Process().children() if child.name() == "gcs_server"]
    service.kill()
    service.wait()
    started = time.monotonic()
    [event] = workers.wait(1.0)
    print(isinstance(event, WorkerLost), event.with_node, time.monotonic() - started < 10)
"""
QUICK = {"RAY_health_check_initial_delay_ms": "0", "RAY_health_check_period_ms": "500",
         "RAY_health_check_timeout_ms": "500", "RAY_health_check_failure_threshold": "2"}


@pytest.mark.parametrize(("victim", "told"), [
    ("raylet", "the node of Ray's that this command is connected to has died"),
    ("gcs_server", "has not answered for 2 s: it has ended"),
])
def test_a_ray_that_dies_ends_the_command_and_says_so(tmp_path, victim, told):
    result = subprocess.run([sys.executable, "-c", PROGRAM, victim, str(tmp_path / "store")], cwd=HOME, timeout=55,
                            env=os.environ | QUICK, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert told in line and line.endswith("run the same command again to go on")


@pytest.mark.parametrize("devices", [1, 2])
def test_a_worker_that_is_lost_together_with_the_control_service_does_not_hang_the_driver(tmp_path, devices):
    paths = {"PYTHONPATH": f"{HOME}{os.pathsep}{HOME / 'tests'}"}
    result = subprocess.run([sys.executable, "-c", LOSES_BOTH, str(tmp_path / "store"), str(devices)], cwd=HOME,
                            timeout=55, env=os.environ | QUICK | paths, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1:] == ["True False True"], result.stderr


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of one node that was, and the own one; it answers while `answers` is set. And a clock."""
    state = SimpleNamespace(now=100.0, answers=threading.Event(), asked=0)
    state.nodes = [{"NodeID": "own", "Alive": True}, {"NodeID": "gone", "Alive": False}]

    def nodes():
        state.asked += 1
        assert state.answers.wait(60)
        return state.nodes

    context = SimpleNamespace(get_node_id=lambda: "own", gcs_address="10.0.0.1:6379")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(ray, "nodes", nodes)
    monkeypatch.setattr(control, "time", SimpleNamespace(monotonic=lambda: state.now))
    monkeypatch.setattr(control, "ANSWER", 0.1)
    yield state
    state.answers.set()


def test_a_service_that_comes_back_is_waited_for(cluster):
    looked = Control()
    for asked in (1, 2):
        for _ in range(3):
            assert looked.nodes() is None
        assert cluster.asked == asked  # and not again, each time
        cluster.now += control.SILENCE - 1
        assert looked.nodes() is None
        cluster.answers.set()
        assert looked.nodes() == [{"NodeID": "own", "Alive": True}]
        cluster.answers.clear()
    assert looked.nodes() is None
    cluster.now += control.SILENCE + 1
    with pytest.raises(ClusterLost, match=r"at 10\.0\.0\.1:6379 has not answered for 20 s"):
        looked.nodes()


def test_a_node_of_others_that_dies_is_no_end(cluster):
    cluster.answers.set()
    looked = Control()
    assert len(looked.nodes()) == 1
    cluster.nodes[0]["Alive"] = False
    with pytest.raises(ClusterLost, match="the node of Ray's that this command is connected to"):
        looked.nodes()


def test_a_leader_that_gets_no_answer_goes_on_without(cluster):
    assert patiently(alive) is None
    cluster.answers.set()
    assert patiently(alive) == [{"NodeID": "own", "Alive": True}]
    assert [is_gone(node, alive()) for node in ("own", "gone", None)] == [False, True, False]
    assert not is_gone("gone", None)
