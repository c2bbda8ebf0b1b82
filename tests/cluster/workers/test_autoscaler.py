"""A cluster without nodes for workers, whose autoscaler starts them: Ray's own, with its provider for one machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest
import ray
from support.processes import free_port

pytestmark = pytest.mark.chaos

EMPTY = ("cluster_synced_files", "head_setup_commands", "head_start_ray_commands", "initialization_commands",
         "rsync_exclude", "rsync_filter", "setup_commands", "worker_setup_commands", "worker_start_ray_commands")
HEAD = "f" * 51 + "00000"  # the name that the provider has for the head
PATIENCE = 120.0  # seconds


def configuration(address):
    """Up to two nodes of one CPU, that go after six seconds of idleness."""
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    worker = {"resources": {"CPU": 1, "object_store_memory": 80 << 20}, "node_config": {}, "max_workers": 2}
    provider = {"type": "fake_multinode", "gcs_address": address, "disable_node_updaters": True,
                "disable_launch_config_check": True, "foreground_node_launch": True, "use_node_id_as_ip": True}
    return {"cluster_name": "test", "max_workers": 2, "upscaling_speed": 1.0, "idle_timeout_minutes": 0.1,
            "provider": provider, "auth": {}, "docker": {}, "file_mounts": {}, "file_mounts_sync_continuously": False,
            "head_node_type": "ray.head.default",
            "available_node_types": {"ray.head.default": head, "worker": worker},
            **{key: [] for key in EMPTY}}


@pytest.fixture
def head(tmp_path):
    """The address of a head without room for a worker."""
    address = f"{ray.util.get_node_ip_address()}:{(port := free_port())}"
    (tmp_path / "autoscaler.json").write_text(json.dumps(configuration(address)))
    environment = {**os.environ, "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1",
                   "RAY_AUTH_MODE": "disabled", "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus", "0", "--port",
               str(port), "--include-dashboard", "false", "--ray-client-server-port", str(free_port()),
               "--object-store-memory", str(80 << 20), "--disable-usage-stats", "--autoscaling-config",
               str(tmp_path / "autoscaler.json")]
    with (tmp_path / "ray.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while "Ray runtime started" not in (tmp_path / "ray.log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "ray.log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def test_workers_that_are_asked_for_make_an_autoscaler_start_nodes_which_go_again(head, write_campaign, tmp_path):
    campaign = write_campaign(workers={"count": 2}, chunk=2)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1",
                   "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "jobs.cli", "run", str(campaign), "--out", str(tmp_path / "store"), "--address",
               head, "--log", str(tmp_path / "log")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=5 * PATIENCE)
    assert result.returncode == 0, result.stdout + result.stderr
    log = (tmp_path / "log").read_text()
    nodes = re.findall(r" worker-up .* node=(\w+)", log)
    assert nodes and HEAD not in nodes, log  # the second may come up too late to be given a task
    ray.init(head, log_to_driver=False)
    try:
        deadline = time.monotonic() + PATIENCE
        while len(alive := [node["NodeID"] for node in ray.nodes() if node["Alive"]]) > 1:
            assert time.monotonic() < deadline, f"{alive} are still there"
            time.sleep(1)
        assert alive == [HEAD]
    finally:
        ray.shutdown()
