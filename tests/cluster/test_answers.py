"""What models said in whole campaigns: kept for every edit that is scored, and no part of what a task is."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from statistics import fmean

import pytest
from support.campaigns import FT

from cluster.driver import run_campaign
from cluster.store.store import Store
from evaluators.datasets import DatasetSpec, load_dataset

WORK = {"editors": [{"name": "identity", "protocols": ["single"]}, {"name": "ft", "config": FT}],
        "protocols": ["single", {"name": "sequential", "lengths": [1, 4]}]}


@pytest.fixture
def ran(make_plan, local_pool, tmp_path):
    """Runs the small campaign with some fields changed; gives its plan, its records and the store."""
    def run(**changes):
        planned = make_plan(**{**WORK, **changes})
        store = Store.create(tmp_path / str(len(list(tmp_path.iterdir()))))
        assert run_campaign(planned, store, local_pool(store), lambda _: None).failed == 0
        return planned, planned.record(datetime.now(UTC)).tasks, store
    return run


def test_every_score_has_the_answers_it_was_worked_out_of(ran):
    planned, tasks, store = ran()
    damaged = []
    table = store.answers(tasks, damaged)
    cases = {case.id: case for case in load_dataset(DatasetSpec(name="testbed-cloze", limit=4)).cases}
    shares = defaultdict(list)
    for each in table.to_pylist():
        task, case = planned.tasks[each["task"]], cases[each["case_id"]]
        assert (each["editor"], each["protocol"], each["edits"]) == (task.editor_title, task.protocol.name, task.count)
        assert (each["subject"], each["relation"], each["settings"]) == (case.subject, case.relation, task.settings)
        assert (each["patch_norm"] is None) == (each["editor"] == "identity")
        kinds = {"portability": ["portability", "portability.all"]}.get(each["question"], [each["question"]])
        for kind in kinds:
            shares[each["task"], each["case_id"], f"{kind}.token"].append(each["right"])
    scored = {(row["task"], row["case_id"], row["metric"]): row["value"] for row in store.rows(tasks).to_pylist()
              if row["metric"].endswith(".token") and not row["metric"].startswith("newest.")}
    assert shares and not damaged and {key: pytest.approx(fmean(found)) for key, found in shares.items()} == scored

    seconds = {(each["task"], each["seconds"]) for each in table.to_pylist()}
    assert len(seconds) == 7
    for name, each in seconds:  # the share of what making all edits took
        task = planned.tasks[name]
        edits = task.count if task.stream else len(task.chunk.cases)
        assert each == pytest.approx(store.provenance(task.key)["seconds_edit"] / edits)


def test_tasks_and_rows_are_the_same_without_them(ran):
    (kept, tasks, store), (planned, others, other) = ran(protocols=["single"]), ran(protocols=["single"], answers=False)
    assert list(kept.tasks) == list(planned.tasks) and tasks == others
    assert other.answers(tasks).num_rows == 0 < store.answers(tasks).num_rows
    rows = [sorted(each.rows(tasks).to_pylist(), key=lambda row: (row["task"], row["case_id"], row["metric"]))
            for each in (store, other)]
    assert rows[0] == rows[1]
    assert all("answers" not in other.provenance(task.key) for task in tasks)
    assert other.done([task.key for task in tasks]) == {task.id for task in tasks}  # and nothing is made for them
