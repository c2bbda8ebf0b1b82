"""A worker's runner: what it computes hangs on the plan alone."""

from datetime import UTC, datetime

import pytest
import torch

from cluster.campaign.spec import WorkerSpec
from cluster.store.store import Store
from cluster.workers.runner import TaskRunner


@pytest.fixture
def as_it_was():
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


def test_sequential_edits_are_the_same_on_one_core_and_on_two(make_plan, tmp_path, as_it_was):
    planned = make_plan(models=["testbed-gptj"], datasets=[{"name": "testbed-cloze", "limit": 3}], chunk=3,
                        editors=[{"name": "ft", "config": {"steps": 6}}],
                        protocols=[{"name": "sequential", "lengths": [3]}])
    rows = []
    for cores in (1, 2):
        torch.set_num_threads(cores)
        torch.set_float32_matmul_precision("medium")
        store = Store.create(tmp_path / str(cores))
        runner = TaskRunner(str(tmp_path / str(cores)), WorkerSpec(cpus=cores, gpus=0))
        for task in planned.tasks.values():
            assert runner.run(task).outcome == "done"
            assert torch.get_float32_matmul_precision() == "highest"
            assert store.provenance(task.key)["device"].startswith("cpu ")
        rows.append(store.rows(planned.record(datetime.now(UTC)).tasks))
    assert rows[0].num_rows and rows[0].equals(rows[1])
