"""A campaign on a cluster of several nodes that is shot at: its rows are those of an undisturbed run.

Real processes, killed at moments and in an order drawn from a seed: workers, raylets with their nodes, the driver; for
every node that dies another joins.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from cluster.store import Store
from tests.cluster.processes import titled

pytestmark = pytest.mark.chaos

FAULTS, SEED = 20, 7
LIMIT = 1500.0  # seconds
FAST = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_timeout_ms": 5000,
        "health_check_failure_threshold": 3}
EDITORS = ["identity", {"name": "ft", "config": {"layers": [1], "steps": 100, "stop_loss": 0}},
           {"name": "rome", "config": {"layer": 1, "steps": 40, "contexts": [[2, 2]]}}]


@pytest.fixture
def campaign(write_campaign):
    """A campaign with needs, streams and statistics, of many small tasks."""
    return write_campaign(chunk=2, editors=EDITORS, datasets=[{"name": "testbed-cloze", "limit": 60}],
                          protocols=["single", {"name": "sequential", "lengths": [4, 8, 12]}])


@pytest.fixture
def nodes():
    """A head without room for workers, and three nodes with room for one each."""
    cluster = Cluster(initialize_head=True, head_node_args={
        "num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20, "_system_config": FAST})
    for _ in range(3):
        join(cluster)
    yield cluster
    cluster.shutdown()


def join(cluster):
    return cluster.add_node(num_cpus=1, object_store_memory=80 << 20)


def start(campaign, store, *arguments):
    """The command that runs a campaign, as a user starts it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with (Path(store).parent / "run.log").open("a") as log:
        return subprocess.Popen([sys.executable, "-m", "jobs.cli", "run", str(campaign), "--out", str(store),
                                 *arguments], env=environment, stdout=log, stderr=log)


def workers():
    """Process ids of the workers that are up."""
    return titled("ray::Worker")


class Chaos:
    """Runs a campaign, does harm at random until there has been enough, and remembers what."""

    def __init__(self, cluster, campaign, store):
        self.cluster, self.draw, self.faults = cluster, random.Random(SEED), []
        self._start = lambda: start(campaign, store, "--address", cluster.address)
        self.driver = self._start()

    def strike(self):
        kind = self.draw.choices(["worker", "node", "driver"], [6, 2, 2])[0]
        if getattr(self, f"kill_{kind}")():
            self.faults.append(kind)

    def kill_worker(self):
        found = workers()
        if found:
            os.kill(self.draw.choice(found), signal.SIGKILL)
        return bool(found)

    def kill_node(self):
        """Its raylet dies; another node joins."""
        node = self.draw.choice(sorted(self.cluster.worker_nodes, key=lambda node: node.node_id))
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        self.cluster.worker_nodes.remove(node)
        node.kill_all_processes(check_alive=False, allow_graceful=False)
        join(self.cluster)
        return True

    def kill_driver(self):
        """The same command is given again at once."""
        if not workers():
            return False
        self.driver.kill()
        self.driver.wait()
        self.driver = self._start()
        return True

    def run(self):
        deadline = time.monotonic() + LIMIT
        while (code := self.driver.poll()) is None:
            assert time.monotonic() < deadline, f"after {self.faults} the campaign is not done"
            time.sleep(self.draw.uniform(0.5, 4))
            if len(self.faults) < FAULTS and self.driver.poll() is None:
                self.strike()
        return code


def read(place):
    """A campaign's rows in the order of its tasks, and what is known of it."""
    store = Store.open(place)
    record = store.campaigns()[0]
    return store.rows(record.tasks), record, store.standing(record)


def test_a_campaign_that_is_shot_at_leaves_the_rows_of_an_undisturbed_one(nodes, campaign, tmp_path):
    assert start(campaign, tmp_path / "undisturbed").wait(LIMIT) == 0
    chaos = Chaos(nodes, campaign, tmp_path / "store")
    assert chaos.run() == 0, (tmp_path / "run.log").read_text()[-5000:]
    assert len(chaos.faults) == FAULTS and set(chaos.faults) == {"worker", "node", "driver"}
    rows, record, standing = read(tmp_path / "store")
    expected, *_ = read(tmp_path / "undisturbed")
    assert standing.done == {task.id for task in record.tasks} and not standing.failures
    assert rows.equals(expected)
    keys = list(zip(*(rows[name].to_pylist() for name in ("task", "case_id", "metric")), strict=True))
    assert len(set(keys)) == len(keys)
