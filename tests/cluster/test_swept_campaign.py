"""A sweep whose driver is killed twice, on two workers, leaves the rows of one that nothing happened to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.processes import LIMIT, wait_for

from cluster.campaign.file import load_campaign
from cluster.driver import run_campaign
from cluster.plan.planner import plan
from cluster.store.store import Store

SWEEPS = {
    8: {"editors.ft.lr": [1e-3, 2e-3, 5e-3, 1e-2], "editors.ft.steps": [20, 40]},
    48: {"editors.ft.lr": [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3], "editors.ft.steps": [2, 5, 10, 20],
         "editors.ft.layers": [[2], [3]]},
}
ON = {8: {}, 48: {"models": ["testbed-gptj"], "datasets": [{"name": "testbed-cloze", "limit": 2}]}}


def start(campaign, store):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with (store.parent / "run.log").open("a") as log:
        return subprocess.Popen([sys.executable, "-m", "jobs.cli", "run", str(campaign), "--out", str(store),
                                 "--workers", "2"], env=environment, stdout=log, stderr=log)


@pytest.mark.chaos
@pytest.mark.parametrize("points", [8, 48])
def test_a_sweep_that_is_killed_twice_gives_the_same_table(write_campaign, local_pool, tmp_path, points):
    path = write_campaign(**ON[points], sweep=SWEEPS[points],
                          editors=["identity", {"name": "ft", "config": {"layers": [1], "stop_loss": 0}}])
    planned = plan(load_campaign(path))
    tasks = [task.record() for task in planned.tasks.values()]
    assert len(planned.campaign.points) == points
    quiet = Store.create(tmp_path / "quiet")
    assert not run_campaign(planned, quiet, local_pool(quiet)).failed

    place = tmp_path / "store"
    for share in (1, 2):
        driver = start(path, place)

        def enough(share=share, driver=driver):
            assert driver.poll() is None, (tmp_path / "run.log").read_text()[-5000:]
            return len(list(place.glob("rows/*.parquet"))) > share * len(tasks) // 4

        wait_for(enough)
        driver.kill()
        driver.wait()
    done = len(list(place.glob("rows/*.parquet")))
    assert len(tasks) // 2 <= done < len(tasks)
    assert start(path, place).wait(LIMIT) == 0, (tmp_path / "run.log").read_text()[-5000:]
    [record] = Store.open(place).campaigns()
    assert len(record.sweep) == points
    assert Store.open(place).rows(tasks).equals(quiet.rows(tasks))
