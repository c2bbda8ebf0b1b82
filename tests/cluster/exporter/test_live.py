"""A real campaign on Ray, scraped by a real Prometheus; and workers that tell of their memory during a task."""

from __future__ import annotations

import signal
import subprocess
import time
import urllib.parse
import urllib.request

import ray
from support.processes import LIMIT, free_port, wait_for
from support.prometheus import needs_prometheus, prometheus, started

from cluster.campaign.spec import WorkerSpec
from cluster.exporter.declared import METRICS
from cluster.scheduler.events import WorkerUp
from cluster.store.store import Store
from cluster.workers.pool import ray_pool
from jobs.looks import ending, look

__all__ = ["prometheus"]


def editing(write_campaign, tmp_path, name, cases):
    """A campaign whose edits take a while, in a folder of its own."""
    path = write_campaign(name=name, chunk=1, datasets=[{"name": "testbed-cloze", "limit": cases}],
                          workers={"count": 1},
                          editors=[{"name": "ft", "config": {"layers": [1], "steps": 300, "stop_loss": 0}}])
    return path.rename(tmp_path / f"{name}.yaml")


@needs_prometheus
def test_two_campaigns_at_once_are_scraped_and_leave_nothing(prometheus, write_campaign, tmp_path):
    port = free_port()
    files = [tmp_path / "targets" / f"{name}.json" for name in ("one", "two")]
    stores = [tmp_path / f"store of {name}" for name in ("one", "two")]
    with started(editing(write_campaign, tmp_path, "one", 200), stores[0], port, files[0]) as one:
        wait_for(files[0].exists)
        with started(editing(write_campaign, tmp_path, "two", 200), stores[1], port, files[1]) as two:

            def done() -> set[str]:
                return {dict(labels)["campaign"] for labels in prometheus('editfleet_tasks{state="done"} > 0')}

            wait_for(lambda: len(done()) == 2 or one.poll() is not None or two.poll() is not None)
            told = {dict(labels)["campaign"] for labels in prometheus("editfleet_campaign_info")}
            assert done() == told == {"one", "two"}
            assert set(prometheus("up").values()) == {1.0} and len(prometheus("up")) == 2
            wait_for(lambda: len(prometheus('editfleet_worker_memory_bytes{memory="rss"} > 1e6')) == 2)
            [first] = set(prometheus('time() - editfleet_driver_heartbeat_timestamp_seconds{campaign="one"}').values())
            assert first < 10
            wait_for(lambda: (glance := look(str(stores[0])).glance).metrics and glance.workers)  # written now and then
            seen = [look(str(stores[0])), look(look(str(stores[0])).glance.metrics)]
            assert {each.campaign for each in seen} == {"one"} and all(each.glance.workers == 1 for each in seen)
            assert seen[0].glance.at and seen[1].glance.store["write"].calls
            text = urllib.request.urlopen(seen[0].glance.metrics, timeout=10).read().decode()
            assert all(f"# TYPE {metric.exposed} {metric.kind}" in text for metric in METRICS)
            checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
            assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
            for process in (one, two):
                process.send_signal(signal.SIGTERM)
            assert [process.wait(LIMIT) for process in (one, two)] == [130, 130]
    assert not any(file.exists() for file in files)
    assert "running it again goes on" in ending(look(str(stores[0])))


def test_workers_tell_of_their_memory_during_a_task(make_plan, tmp_path):
    planned = make_plan(chunk=4, editors=[{"name": "ft", "config": {"layers": [1], "steps": 10_000, "stop_loss": 0}}])
    store = Store.create(tmp_path / "store")
    ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
    try:
        with ray_pool(store, WorkerSpec(count=1)) as pool:
            pool.start(0)
            while pool.wait(1.0) != [WorkerUp(0)]:
                pass
            baseline, score = planned.tasks.values()
            pool.assign(0, baseline, 1)
            while not pool.wait(1.0):
                pass
            assert 1e7 < pool.memory()[0].rss < pool.memory()[0].limit  # told with the task
            pool.assign(0, score, 1)
            time.sleep(0.5)
            pool._memory.__init__()
            began = time.monotonic()
            pool.memory()
            assert time.monotonic() - began < 0.5  # nobody waits for it
            while not pool.memory():
                assert pool.wait(0.1) == []  # the task goes on
            assert pool.memory()[0].rss > 1e7
            pool.retire(0)
            assert pool.memory() == {}
    finally:
        ray.shutdown()
