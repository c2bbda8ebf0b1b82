"""What MEMIT's batches need of each case by itself: sought by tasks of their own, once for all sizes and orders."""

from __future__ import annotations

import pytest
import torch
from support.campaigns import FT

from cluster.driver import run_campaign
from cluster.store.store import Store
from cluster.workers.executor import TaskExecutor
from editors.core.errors import CaseError, InputError
from editors.core.methods.sought import load_sought, save_sought
from editors.memit import MEMIT

MEMIT_CONFIG = {"layers": [0, 1], "moment_weight": 50, "steps": 3, "contexts": []}
BATCHES = {"name": "batch", "sizes": [1, 2, 4]}
EDITORS = ["identity", {"name": "ft", "config": FT}, {"name": "memit", "config": MEMIT_CONFIG}]


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def of_kind(planned, kind, editor="memit"):
    return [task for task in planned.tasks.values() if task.kind == kind and task.title.startswith(editor)]


def rows(store, planned, editor="memit"):
    tasks = [task for task in of_kind(planned, "score", editor)]
    found = store.rows(task.record() for task in tasks).to_pylist()
    return sorted(found, key=lambda row: (row["protocol"], row["order"], row["edits"], row["case_id"], row["metric"]))


def test_each_case_is_sought_once_for_all_batches_that_it_is_in(make_plan):
    planned = make_plan(editors=EDITORS, protocols=["single", BATCHES], orders=[0, 1])
    values = of_kind(planned, "values")
    assert [(task.chunk.first, task.chunk.last, task.needs) for task in values] == [(1, 2, ()), (3, 4, ())]
    assert [task.title for task in values] == [f"memit on tiny values: testbed-cloze, cases {at}" for at in ("1-2", "3-4")]
    place = {case.id: task for task in values for case in task.chunk.cases}
    for task in of_kind(planned, "score"):
        wanted = {place[case.id].id for case in task.chunk.cases} if task.protocol.name == "batch" else set()
        assert {need.id for need in task.values} == wanted == set(task.needs) & {each.id for each in values}
    position = {task: number for number, task in enumerate(planned.tasks)}
    assert all(position[need] < position[task.id] for task in planned.tasks.values() for need in task.needs)
    assert not of_kind(planned, "values", "ft") and not of_kind(make_plan(editors=EDITORS), "values")


def test_batches_of_what_was_sought_before_are_as_if_it_were_sought_in_them(make_plan, store, local_pool, tmp_path,
                                                                              monkeypatch):
    planned = make_plan(editors=EDITORS[2:], protocols=[BATCHES], orders=[0, 1])
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    monkeypatch.setattr(MEMIT, "apart", False)
    whole, other = make_plan(editors=EDITORS[2:], protocols=[BATCHES], orders=[0, 1]), Store.create(tmp_path / "other")
    assert not of_kind(whole, "values")
    assert run_campaign(whole, other, local_pool(other)).failed == 0
    found, expected = rows(store, planned), rows(other, whole)
    assert len(found) == len(expected) > 100
    for row, wanted in zip(found, expected, strict=True):
        assert row.pop("task") != wanted.pop("task")
        assert row.pop("value") == pytest.approx(wanted.pop("value"), abs=1e-5, nan_ok=True)
        assert row == wanted
    for task in of_kind(planned, "score"):
        told = store.provenance(task.key)
        assert told["seconds_each"] * len(task.chunk.cases) > told["seconds_edit"] > 0


def test_nothing_is_sought_again(make_plan, store, local_pool, monkeypatch):
    planned = make_plan(editors=EDITORS[2:], protocols=[BATCHES])
    executor = TaskExecutor(store)
    scores = of_kind(planned, "score")
    for task in planned.tasks.values():
        if task not in scores:
            executor.run(task)
    monkeypatch.setattr("editors.memit.optimise_values", lambda *_, **__: pytest.fail("sought again"))
    for task in scores:
        executor.run(task)
    assert executor.held._editor.sought == {}


def test_a_case_of_which_nothing_was_found_is_told_where_it_is_edited(make_plan, store, local_pool, monkeypatch):
    seek = MEMIT.seek

    def refuse(self, requests):
        if any(request.id == bad for request in requests):
            raise CaseError("no value for it")
        return seek(self, requests)

    planned = make_plan(editors=EDITORS[2:], protocols=[BATCHES])
    bad = of_kind(planned, "values")[0].chunk.cases[1].id
    monkeypatch.setattr(MEMIT, "seek", refuse)
    assert run_campaign(planned, store, local_pool(store)).failed == 0
    for task in (*of_kind(planned, "values"), *of_kind(planned, "score")):
        failed = [each["case_id"] for each in store.provenance(task.key)["failed"]]
        assert failed == [bad] * (bad in {case.id for case in task.chunk.cases})
    assert len({row["case_id"] for row in rows(store, planned)}) == 3


def test_files_of_values_come_back_whole_or_not_at_all(tmp_path):
    found = {1: torch.randn(5, dtype=torch.float64), 4: torch.randn(5, dtype=torch.float64)}
    save_sought(found, tmp_path / "values")
    again = load_sought(tmp_path / "values")
    assert again.keys() == found.keys() and all(torch.equal(again[number], found[number]) for number in found)
    save_sought({}, tmp_path / "none")
    assert load_sought(tmp_path / "none") == {}
    content = bytearray((tmp_path / "values").read_bytes())
    content[-3] ^= 1
    (tmp_path / "values").write_bytes(content)
    with pytest.raises(InputError, match="sought values file .* is damaged"):
        load_sought(tmp_path / "values")
