"""A campaign that is shot at, on a cluster of nodes or a Ray of its own: its rows are those of an undisturbed run.

Real processes, killed at moments and in an order drawn from a seed: workers, ranks of gangs, raylets with their nodes,
the driver, the control service of an own Ray; or a driver that is stopped until another has taken over. For every node
that dies another joins; a command that ends is given again. Fifty faults in all, and two in the tests of every day.
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

import psutil
import pytest
from ray.cluster_utils import Cluster
from support.campaigns import run_here
from support.processes import titled

from cluster.campaign.file import load_campaign
from cluster.plan.planner import plan
from cluster.store.store import Store

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


ON_A_CLUSTER = {
    "workers": Plot({}, 60, [4, 8, 12], 100, {"worker": 14, "node": 6, "driver": 6, "takeover": 2}, (0.5, 4)),
    # No node has room for two ranks, so a gang spans two. It takes longer to come up.
    "gangs": Plot({"devices": 2, "timeout": 30}, 24, [2, 4, 6, 8], 20,
                  {"rank": 3, "worker": 2, "node": 2, "driver": 1}, (4, 24)),
}
ALONE = {
    "own": Plot({"count": 2}, 60, [4, 8, 12], 100, {"worker": 5, "raylet": 3, "gcs_server": 3, "driver": 3}, (0.5, 4)),
    "short": Plot({"count": 2}, 8, [2, 4], 40, {"worker": 1, "raylet": 1}, (0.1, 1)),
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
    quick = {f"RAY_{name}": str(value) for name, value in FAST.items()}
    environment = {**os.environ, **quick, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with (Path(store).parent / "run.log").open("a") as log:
        return subprocess.Popen([sys.executable, "-m", "jobs.cli", "run", str(campaign), "--out", str(store),
                                 *arguments], env=environment, stdout=log, stderr=log)


class Chaos:
    """Runs a campaign, does harm at random until there has been enough, and remembers what."""

    def __init__(self, cluster, campaign, store, plot):
        self.cluster, self.store, self.pause, self.draw = cluster, Path(store), plot.pause, random.Random(SEED)
        self.planned, self.faults = list(Counter(plot.faults).elements()), []
        self.draw.shuffle(self.planned)
        address = ["--address", cluster.address] if cluster else []
        self._start = lambda: start(campaign, store, *address)
        self.driver = self._start()

    def strike(self):
        kind = self.planned[-1]
        harm = {"node": self.kill_node, "driver": self.kill_driver, "takeover": self.stop_driver,
                "raylet": self.kill_ray, "gcs_server": self.kill_ray}.get(kind, self.kill_one)
        if titled(TITLES["worker"]) and harm(kind):
            self.faults.append(self.planned.pop())

    def kill_one(self, kind):
        found = titled(TITLES[kind])
        if found:
            os.kill(self.draw.choice(found), signal.SIGKILL)
        return bool(found)

    def kill_node(self, _):
        """Its raylet dies; another node joins."""
        node = self.draw.choice(sorted(self.cluster.worker_nodes, key=lambda node: node.node_id))
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        self.cluster.worker_nodes.remove(node)
        node.kill_all_processes(check_alive=False, allow_graceful=False)
        join(self.cluster)
        return True

    def kill_driver(self, _):
        """The same command is given again at once."""
        self.driver.kill()
        self.driver.wait()
        self.driver = self._start()
        return True

    def kill_ray(self, process):
        """The command's own Ray is gone: it says so, ends, and is given again."""
        found = [child for child in psutil.Process(self.driver.pid).children(recursive=True) if child.name() == process]
        if not found:
            return False
        found[0].kill()
        assert self.driver.wait(120) == 1
        [*_, told] = [line for line in (self.store.parent / "run.log").read_text().splitlines() if "Error:" in line]
        assert told.endswith("run the same command again to go on")
        self.driver = self._start()
        return True

    def stop_driver(self, _):
        """The same command is given again, takes over once the stopped driver has been still for long enough, and is
        the one that goes on when that wakes."""
        stopped, self.driver = self.driver, self._start()
        os.kill(stopped.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 120
        while (record := Store.open(self.store).driver()) is None or record.pid != self.driver.pid:
            assert time.monotonic() < deadline and self.driver.poll() is None
            time.sleep(0.2)
        os.kill(stopped.pid, signal.SIGCONT)
        assert stopped.wait(120) == 1
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


def shoot(cluster, write_campaign, local_pool, folder, plot):
    campaign = write_campaign(**plot.fields())
    run_here(plan(load_campaign(campaign)), Store.create(folder / "undisturbed"), local_pool)
    chaos = Chaos(cluster, campaign, folder / "store", plot)
    assert chaos.run() == 0, (folder / "run.log").read_text()[-5000:]
    assert Counter(chaos.faults) == plot.faults
    rows, record, standing = read(folder / "store")
    expected, *_ = read(folder / "undisturbed")
    assert standing.done == {task.id for task in record.tasks} and not standing.failures
    assert rows.equals(expected)


@pytest.mark.chaos
@pytest.mark.parametrize("plot", ON_A_CLUSTER.values(), ids=ON_A_CLUSTER)
def test_a_campaign_that_is_shot_at_leaves_the_rows_of_an_undisturbed_one(nodes, write_campaign, local_pool, tmp_path,
                                                                          plot):
    shoot(nodes, write_campaign, local_pool, tmp_path, plot)


@pytest.mark.parametrize("plot", [pytest.param(plot, id=name, marks=pytest.mark.chaos if name == "own" else ())
                                  for name, plot in ALONE.items()])
def test_so_does_one_on_a_ray_of_its_own(write_campaign, local_pool, tmp_path, plot):
    shoot(None, write_campaign, local_pool, tmp_path, plot)
