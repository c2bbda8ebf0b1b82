"""Workers that die alone, and those that go down with their node, are told apart."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from ray.cluster_utils import Cluster
from support.processes import titled

from cluster.campaign.spec import WorkerSpec
from cluster.scheduler.events import WorkerLost, WorkerUp
from cluster.store.store import Store
from cluster.workers.pool import ray_pool

pytestmark = pytest.mark.chaos

FAST = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_timeout_ms": 2000,
        "health_check_failure_threshold": 3}
ROOM = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture
def cluster():
    """A head without room, and two nodes with room for one process each."""
    cluster = Cluster(initialize_head=True, head_node_args={
        **ROOM, "num_cpus": 0, "include_dashboard": False, "_system_config": FAST})
    for _ in range(2):
        cluster.add_node(**ROOM)
    yield cluster
    cluster.shutdown()


def next_event(pool):
    deadline = time.monotonic() + 180
    while not (events := pool.wait(1)):
        assert time.monotonic() < deadline
    [event] = events
    return event


def kill_node_of(process, cluster):
    raylet = psutil.Process(process).ppid()
    [node] = [node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.pid == raylet]
    cluster.worker_nodes.remove(node)
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize(("devices", "title"), [(1, "ray::Worker"), (2, "ray::Rank")])
def test_a_worker_that_dies_and_one_whose_node_does(make_plan, tmp_path, cluster, devices, title):
    task = next(iter(make_plan(editors=["identity"]).tasks.values()))
    spec = WorkerSpec(count=1, devices=devices, gpus=0)
    with ray_pool(Store.create(tmp_path / "store"), spec, cluster.address) as pool:
        for worker, kill in enumerate((lambda process: os.kill(process, signal.SIGKILL),
                                       lambda process: kill_node_of(process, cluster))):
            pool.start(worker)
            assert next_event(pool) == WorkerUp(worker)
            process = titled(title)[-1]
            os.kill(process, signal.SIGSTOP)  # else it would be done before it dies
            pool.assign(worker, task, 1)
            time.sleep(1)
            kill(process)
            event = next_event(pool)
            assert isinstance(event, WorkerLost) and event.worker == worker and event.reason
            assert event.with_node == bool(worker), event.reason
