"""A gang whose ranks are on two nodes of a cluster."""

from __future__ import annotations

import psutil
import pytest
import torch
from ray.cluster_utils import Cluster
from support.campaigns import ROME
from support.processes import titled

from cluster.campaign.spec import WorkerSpec
from cluster.driver import run_campaign
from cluster.store.store import Store
from cluster.workers.pool import ray_pool


@pytest.fixture
def address():
    """Of a cluster of two nodes with room for one rank each."""
    room = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**room, "include_dashboard": False})
    cluster.add_node(**room)
    yield cluster.address
    cluster.shutdown()


def test_a_gang_over_two_nodes_leaves_the_rows_of_a_worker(make_plan, tmp_path, address, local_pool):
    planned = make_plan(editors=["identity", {"name": "rome", "config": ROME}])
    here, there = (Store.create(tmp_path / name) for name in ("here", "there"))
    run_campaign(planned, here, local_pool(here))
    nodes = set()

    def watch(_):
        nodes.update(psutil.Process(rank).ppid() for rank in titled("ray::Rank"))

    outcome = run_campaign(planned, there, lambda: ray_pool(there, WorkerSpec(devices=2), address), watch)
    assert outcome.failed == 0 and outcome.done == len(planned.tasks)
    assert len(nodes) == 2
    rows = [store.rows(store.campaigns()[0].tasks).to_pandas() for store in (here, there)]
    values = [torch.tensor(each.pop("value")) for each in rows]
    assert rows[1].equals(rows[0]) and len(rows[0])
    torch.testing.assert_close(values[1], values[0], atol=1e-5, rtol=1e-5)
