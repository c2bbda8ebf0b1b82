"""Workers whose device is too small: less is at work at once until it suffices, and the rows are the same."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import torch

from cluster.campaign.spec import WorkerSpec
from cluster.store.store import Store
from cluster.workers.runner import TaskRunner
from editors.core.memory import HALVINGS, USABLE, Room, free_bytes, main_memory
from editors.core.models.loading import load_model

TOKENS = 260  # that the planted device has room for in one pass: two of the longest texts that the tiny model reads
VALUES = {"steps": 2, "contexts": [[2, 2]], "batch_tokens": 512}
MEND = {"name": "mend", "config": {"layers": [2, 3], "rank": 4, "steps": 3, "batch_size": 16, "learning_rate": 1e-4,
                                   "validate_every": 3, "validation_examples": 8}}


class Planted:
    """Loads models whose blocks are out of memory when they are given more than so many tokens."""

    def __init__(self, tokens):
        self.tokens, self.times = tokens, 0

    def __call__(self, *arguments, **options):
        model = load_model(*arguments, **options)
        for layer in range(model.depth):
            model.submodule(model.block_path(layer)).register_forward_pre_hook(self.check)
        return model

    def check(self, _module, arguments):
        if arguments[0].shape[:2].numel() > self.tokens:
            self.times += 1
            raise torch.OutOfMemoryError(f"no room for {arguments[0].shape[:2].numel()} tokens")


def done(planned, root, load):
    """The rows of a plan as one worker makes them, which is given a task again in twice as many parts where memory has
    not sufficed; and that worker."""
    store = Store.create(root)
    runner = TaskRunner(str(root), WorkerSpec(cpus=1, gpus=0))
    runner.executor.held.load = load
    for task in planned.tasks.values():
        parts = 1
        while (result := runner.run(task, parts)).outcome == "out of memory":
            parts *= 2
            assert parts <= task.pieces, result.detail
        assert result.outcome == "done", result.detail
    return store.rows(planned.record(datetime.now(UTC)).tasks), runner


@pytest.mark.parametrize("fields", [
    {"editors": [{"name": "ft", "config": {"layers": [1], "steps": 2}}]},
    {"editors": [{"name": "memit", "config": {"layers": [1, 2], **VALUES}}],
     "protocols": [{"name": "batch", "sizes": [8]}], "measures": {"perplexity": {"texts": 3}}},
    {"editors": [MEND], "protocols": [{"name": "sequential", "lengths": [8]}]},
], ids=["single", "joint, perplexity", "training, stream"])
def test_less_is_at_work_until_it_fits_and_rows_are_the_same(make_plan, tmp_path, fields):
    planned = make_plan(**fields, datasets=[{"name": "testbed-cloze", "limit": 8}], chunk=8,
                        training={"limit": 40})
    plenty, short = Planted(10**9), Planted(TOKENS)
    (rows, _), (others, runner) = (done(planned, tmp_path / str(load.tokens), load) for load in (plenty, short))
    assert short.times and not plenty.times
    names = [name for name in rows.column_names if name != "value"]
    assert rows.num_rows and rows.select(names).equals(others.select(names))
    assert others["value"].to_pylist() == pytest.approx(rows["value"].to_pylist(), rel=1e-5, abs=1e-5, nan_ok=True)
    # what one kind of task has taught is for that kind: most tasks on the same worker found room at once
    halved = [room.halved for room in runner.executor.held._rooms.values()]
    assert 0 < max(halved) <= HALVINGS


def test_what_does_not_fit_at_all_says_so(make_plan, tmp_path):
    planned = make_plan(editors=["identity"])
    [task] = [task for task in planned.tasks.values() if task.kind == "baseline"][:1]
    runner = TaskRunner(str(Store.create(tmp_path / "store").root), WorkerSpec(cpus=1, gpus=0))
    runner.executor.held.load = Planted(3)
    parts, outcomes = 1, []
    while parts <= task.pieces:
        outcomes.append(runner.run(task, parts))
        parts *= 2
    assert {result.outcome for result in outcomes} == {"out of memory"} and "no room for" in outcomes[-1].detail


def test_what_pytorch_has_set_aside_on_a_gpu_is_free(monkeypatch):
    for name, value in (("mem_get_info", (10, 100)), ("memory_reserved", 7), ("memory_allocated", 3)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_bytes(torch.device("cuda")) == pytest.approx(USABLE * 14)
    total, free = main_memory()
    assert 0 < free <= total and 0 < free_bytes(torch.device("cpu")) < total


def test_rooms():
    room = Room()
    assert [room.at_once(100, 1, free) for free in (1e9, 100, 99, 64, 63, 1, 0)] == [100, 100, 64, 64, 32, 1, 1]
    assert room.at_once(100, 0, 0) == 100
    room.halve()
    assert [room.at_once(100, 1, free) for free in (1e9, 99, 1)] == [50, 32, 1]
    room.shrink(2)
    assert room.halved == 1
    room.shrink(8)
    assert room.at_once(100, 1, 1e9) == 12
    for _ in range(10):
        room.halve()
    assert room.halved == HALVINGS
