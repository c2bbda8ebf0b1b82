"""Why workers are lost, in words that tell."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ray

from cluster.workers.losses import why_lost

# An actor that Ray's own memory monitor kills, on a node that is low on memory from the start.
PROGRAM = """
import time, ray
from cluster.workers.losses import why_lost

ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)

@ray.remote(max_restarts=0)
class Held:
    def hold(self):
        time.sleep(120)

try:
    ray.get(Held.remote().hold.remote())
except ray.exceptions.RayError as error:
    print(why_lost(error))
"""


def test_a_worker_that_ray_kills_for_memory_says_how_much_was_used():
    settings = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100",
                "PYTHONPATH": str(Path(__file__).parents[3])}
    told = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | settings, capture_output=True, text=True,
                          timeout=300, check=True).stdout
    assert re.fullmatch(r"killed by Ray's memory monitor: node \S+ ran low on memory, [\d.]+[GM]B used of [\d.]+GB; "
                        r"run fewer workers .*\n", told), told


def test_words_of_another_ray_are_not_passed_on_by_the_thousand():
    told = why_lost(ray.exceptions.OutOfMemoryError("Other words.\n" + "Refer to the documentation. " * 80))
    assert "its node ran low on memory" in told and len(told) < 200
    assert why_lost(ray.exceptions.RayError("gone")) == "gone"
