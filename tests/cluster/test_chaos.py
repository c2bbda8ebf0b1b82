"""A campaign on a cluster of several nodes that is shot at: its rows are those of an undisturbed run.

Real processes, killed at moments and in an order drawn from a seed: workers, ranks of gangs, raylets with their nodes,
the driver; for every node that dies another joins.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ray.cluster_utils import Cluster
from support.processes import titled

from cluster.store.store import Store

pytestmark = pytest.mark.chaos

SEED = 7
LIMIT = 1500.0  # seconds
FAST = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_timeout_ms": 5000,
        "health_check_failure_threshold": 3}


class Plot(NamedTuple):
    """A campaign of many small tasks with needs, streams and statistics; how often which harm is done to it, and how
    many seconds lie between, at least and at most."""

    workers: dict[str, Any]
    cases: int
    lengths: list[int]
    steps: int
    faults: dict[str, int]
    pause: tuple[float, float]

    def fields(self):
        editors = ["identity", {"name": "ft", "config": {"layers": [1], "steps": self.steps, "stop_loss": 0}},
                   {"name": "rome", "config": {"layer": 1, "steps": 40 * self.steps // 100, "contexts": [[2, 2]]}}]
        return {"chunk": 2, "editors": editors, "datasets": [{"name": "testbed-cloze", "limit": self.cases}],
                "protocols": ["single", {"name": "sequential", "lengths": self.lengths}], "workers": self.workers}


PLOTS = {
    "workers": Plot({}, 60, [4, 8, 12], 100, {"worker": 12, "node": 4, "driver": 4}, (0.5, 4)),
    # No node has room for two ranks, so a gang spans two. It takes longer to come up.
    "gangs": Plot({"devices": 2, "timeout": 30}, 24, [2, 4, 6, 8], 20,
                  {"rank": 3, "worker": 2, "node": 2, "driver": 1}, (4, 24)),
}
TITLES = {"worker": "ray::Worker", "rank": "ray::Rank"}  # of processes; who leads a gang is a worker


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


class Chaos:
    """Runs a campaign, does harm at random until there has been enough, and remembers what."""

    def __init__(self, cluster, campaign, store, plot):
        self.cluster, self.pause, self.draw, self.faults = cluster, plot.pause, random.Random(SEED), []
        self.planned = list(Counter(plot.faults).elements())
        self.draw.shuffle(self.planned)
        self._start = lambda: start(campaign, store, "--address", cluster.address)
        self.driver = self._start()

    def strike(self):
        kind = self.planned[-1]
        harm = {"node": self.kill_node, "driver": self.kill_driver}.get(kind, lambda: self.kill_one(TITLES[kind]))
        if harm():
            self.faults.append(self.planned.pop())

    def kill_one(self, title):
        found = titled(title)
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
        if not titled(TITLES["worker"]):
            return False
        self.driver.kill()
        self.driver.wait()
        self.driver = self._start()
        return True

    def run(self):
        deadline = time.monotonic() + LIMIT
        while (code := self.driver.poll()) is None:
            assert time.monotonic() < deadline, f"after {self.faults} the campaign is not done"
            time.sleep(self.draw.uniform(*self.pause))
            if self.planned and self.driver.poll() is None:
                self.strike()
        return code


def read(place):
    """A campaign's rows in the order of its tasks, and what is known of it."""
    store = Store.open(place)
    record = store.campaigns()[0]
    return store.rows(record.tasks), record, store.standing(record)


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_a_campaign_that_is_shot_at_leaves_the_rows_of_an_undisturbed_one(nodes, write_campaign, tmp_path, plot):
    campaign = write_campaign(**plot.fields())
    assert start(campaign, tmp_path / "undisturbed").wait(LIMIT) == 0
    chaos = Chaos(nodes, campaign, tmp_path / "store", plot)
    assert chaos.run() == 0, (tmp_path / "run.log").read_text()[-5000:]
    assert Counter(chaos.faults) == plot.faults
    rows, record, standing = read(tmp_path / "store")
    expected, *_ = read(tmp_path / "undisturbed")
    assert standing.done == {task.id for task in record.tasks} and not standing.failures
    assert rows.equals(expected)
    keys = list(zip(*(rows[name].to_pylist() for name in ("task", "case_id", "metric")), strict=True))
    assert len(set(keys)) == len(keys)
