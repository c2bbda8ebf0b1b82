"""How workers are lost, in words that tell."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from cluster.workers.losses import LONGEST, GangLost, Loss, loss_of

# An actor that Ray's own memory monitor kills, on a node that is low on memory from the start.
PROGRAM = """
import time, ray
from cluster.workers.losses import loss_of

ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)

@ray.remote(max_restarts=0)
class Held:
    def hold(self):
        time.sleep(120)

try:
    ray.get(Held.remote().hold.remote())
except ray.exceptions.RayError as error:
    loss = loss_of(error)
    print(loss.reason, loss.out_of_memory)
"""


def test_a_worker_that_ray_kills_for_memory_says_how_much_was_used():
    settings = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100",
                "PYTHONPATH": str(Path(__file__).parents[3])}
    told = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | settings, capture_output=True, text=True,
                          timeout=300, check=True).stdout
    assert re.fullmatch(r"killed by Ray's memory monitor: node \S+ ran low on memory, [\d.]+[GM]B used of [\d.]+GB; "
                        r"run fewer workers .* True\n", told), told


def test_words_of_another_ray_are_not_passed_on_by_the_thousand():
    loss = loss_of(ray.exceptions.OutOfMemoryError("Other words.\n" + "Refer to the documentation. " * 80))
    assert "its node ran low on memory" in loss.reason and loss.out_of_memory and len(loss.reason) < 200
    assert loss_of(ray.exceptions.RayError("gone")) == Loss("gone")
    assert len(loss_of(ray.exceptions.RayError("very " * 500)).reason) <= LONGEST
    assert loss_of(ray.exceptions.RayError("very " * 500 + "\nlate")).reason.endswith("very late")
    assert loss_of(ray.exceptions.RayError("gone"), with_node=True).with_node


@pytest.fixture(scope="module")
def local_ray():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote(max_restarts=0)
class Doomed:
    """An actor that ends as it is told to."""

    def __init__(self, refuse=False):
        if refuse:
            raise KeyError("no such\nkey")

    def die(self, number):
        os.kill(os.getpid(), number)

    def lead(self):
        raise GangLost(Loss("rank 1 of 2 is lost", out_of_memory=True, with_node=True))

    def node(self):
        return ray.get_runtime_context().get_node_id()


def _lost(call):
    with pytest.raises(ray.exceptions.RayError) as caught:
        ray.get(call)
    return caught.value


@pytest.mark.parametrize("number", [9, 11], ids=["killed", "crashed"])
def test_a_process_that_ends_is_told_in_one_line(local_ray, number):
    doomed = Doomed.remote()
    loss = loss_of(_lost(doomed.die.remote(number)))
    assert re.fullmatch(r"its process ended unexpectedly \(.{10,100}\): it crashed, or was killed.*", loss.reason)
    assert not loss.out_of_memory and not loss.with_node


def test_what_a_constructor_raised_is_told_with_its_line(local_ray):
    error = _lost(Doomed.remote(refuse=True).node.remote())
    assert "\x1b[" in str(error) and len(str(error)) > 300  # or else nothing would be left out
    assert re.fullmatch(rf"KeyError: 'no such\\nkey' \({re.escape(__file__)}, line \d+\)", loss_of(error).reason)


def test_a_gang_says_itself_how_it_was_lost(local_ray):
    error = _lost(Doomed.remote().lead.remote())
    assert loss_of(error) == Loss("rank 1 of 2 is lost", out_of_memory=True, with_node=True)
    assert pickle.loads(pickle.dumps(GangLost(Loss("gone")))).loss == Loss("gone")
    assert str(GangLost(Loss("gone"))) == "gone"
