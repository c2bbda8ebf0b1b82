"""What happens in a campaign, and the numbers that it shows then: counted here by hand."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from support.watched import FULL, Watched, score

from cluster.plan.labels import Labels
from cluster.scheduler.events import OutOfMemory, ResultDamaged, Room, TaskFailed, WorkerLost, WorkerUp
from cluster.scheduler.graph import Stage
from cluster.store.errors import StoreError
from cluster.store.store import Store
from cluster.store.timed import timing
from evaluators.metering.account import Account

BASELINE = Labels("baseline", "m")


@pytest.fixture
def two():
    """A baseline, and scores that need it, on one worker that is at the baseline."""
    return Watched({"base": ((), BASELINE), "one": (("base",), score()), "two": (("base",), score())})


def parts(shown, *starts):
    return {name: value for name, value in shown.items() if name.startswith(starts) and value}


def test_tasks_by_kind_and_state(two):
    assert parts(two.shown(), "tasks{") == {"tasks{kind=baseline,state=running}": 1,
                                            "tasks{kind=score,state=waiting}": 2}
    two.finish()
    assert parts(two.shown(), "tasks{") == {"tasks{kind=baseline,state=done}": 1, "tasks{kind=score,state=ready}": 1,
                                            "tasks{kind=score,state=running}": 1}
    two.tell(TaskFailed(0, "one", "no"), TaskFailed(0, "one", "no"))
    two.tell(TaskFailed(0, two.doing(), "no"), TaskFailed(0, two.doing(), "no"))
    assert two.shown()["tasks{kind=score,state=set_aside}"] >= 1
    stages = {name.partition("state=")[2] for name in two.shown() if name.startswith("tasks{")}
    assert stages <= {f"{stage}}}" for stage in get_args(Stage)}


def test_what_a_task_took_and_yielded(two):
    two.finish(seconds=0.5, account=Account())
    two.finish(seconds=2.0)
    two.finish(seconds=2.5)
    shown = two.shown()
    assert shown["task_seconds_bucket{editor=ft,kind=score,le=1}"] == 0
    assert shown["task_seconds_bucket{editor=ft,kind=score,le=2}"] == 1  # a bound belongs to its bucket
    assert shown["task_seconds_bucket{editor=ft,kind=score,le=5}"] == 2
    assert shown["task_seconds_bucket{editor=ft,kind=score,le=+Inf}"] == 2
    assert shown["task_seconds_sum{editor=ft,kind=score}"] == 4.5
    assert shown["task_seconds_count{editor=,kind=baseline}"] == 1
    assert parts(shown, "edits_", "probes") == {
        "edits_planned": 12, "edits_done": 12, "edits_total{editor=ft,model=m}": 8,
        "edits_diverged_total{editor=ft,model=m}": 2, "probes_total{editor=ft,model=m}": 80}
    assert shown["edit_seconds_sum{editor=ft,model=m}"] == 1.0  # twice 2 s for 4 edits
    assert shown["edit_seconds_count{editor=ft,model=m}"] == 2
    assert shown["phase_seconds_total{editor=ft,model=m,phase=edit}"] == 4.0
    assert shown["phase_peak_memory_bytes{editor=ft,memory=rss,model=m,phase=train}"] == 8
    assert not [name for name in shown if name.startswith("phase_peak") and "phase=load" in name]
    assert shown["progress_ratio"] == 1 and shown["expected_remaining_seconds"] == 0


def test_means_are_over_all_scores(two):
    two.finish(account=Account())
    two.finish(account=Account(scored={"reliability.exact": (3.0, 4), "locality.token": (1.0, 4)}))
    two.tally.scored_before("two", {"reliability.exact": (0.0, 2)})
    shown = two.shown()
    labels = "{dataset=d,editor=ft,edits=1,metric=reliability.exact,model=m,protocol=single}"
    assert parts(shown, "metric_mean", "cases_scored") == {f"metric_mean{labels}": 0.5, f"cases_scored{labels}": 6}


def test_time_that_is_left_and_work_that_waits(two):
    assert math.isnan(two.shown()["expected_remaining_seconds"])
    two.time(0)
    two.time(20)
    two.finish()
    assert two.shown()["expected_remaining_seconds"] == 40  # a third of the work took 20 seconds
    assert two.shown()["ready_task_oldest_age_seconds"] == 0  # since the baseline was done
    two.time(7)
    shown = two.shown()
    assert shown["ready_task_oldest_age_seconds"] == 7 and shown["worker_busy_seconds_total"] == 27


def test_workers_by_state(two):
    two.tell(Room(3))
    assert parts(two.shown(), "workers{") == {"workers{state=wanted}": 3, "workers{state=busy}": 1,
                                              "workers{state=idle}": 2}


def retried_and_failed(shown):
    return parts(shown, "task_retries", "task_failures", "workers_lost")


@pytest.mark.parametrize(("event", "counted"), [
    (lambda task: TaskFailed(0, task, "no"),
     {"task_failures_total{kind=baseline,reason=raised}": 1, "task_retries_total{reason=raised}": 1}),
    (lambda task: OutOfMemory(0, task, "no"),
     {"task_failures_total{kind=baseline,reason=out_of_memory}": 1, "task_retries_total{reason=out_of_memory}": 1}),
    (lambda task: WorkerLost(0, "gone"), {"workers_lost_total{reason=died}": 1,
                                          "task_retries_total{reason=worker_lost}": 1}),
    (lambda task: WorkerLost(0, "gone", with_node=True), {"workers_lost_total{reason=node}": 1,
                                                          "task_retries_total{reason=node_lost}": 1}),
    (lambda task: WorkerLost(0, "gone", out_of_memory=True), {
        "workers_lost_total{reason=out_of_memory}": 1, "task_retries_total{reason=out_of_memory}": 1,
        "task_failures_total{kind=baseline,reason=out_of_memory}": 1}),
    (lambda task: TaskFailed(0, "another", "no"), {}),
])
def test_trouble_by_reason(two, event, counted):
    two.tell(event("base"))
    assert retried_and_failed(two.shown()) == counted


def test_a_worker_that_never_came_up_and_one_that_was_turned_away():
    watched = Watched({"base": ((), BASELINE)})
    watched.tally.handled(WorkerLost(7, "no node"), [])
    watched.tally.handled(WorkerLost(8, "another version", refused=True), [])
    assert retried_and_failed(watched.shown()) == {"workers_lost_total{reason=never_started}": 1,
                                                   "workers_lost_total{reason=refused}": 1}


def test_a_worker_that_hangs(two):
    for _ in range(7):  # a tick of which the first only sets the clock
        two.time(20)
    assert retried_and_failed(two.shown()) == {
        "workers_lost_total{reason=timeout}": 1, "task_failures_total{kind=baseline,reason=timeout}": 1,
        "task_retries_total{reason=worker_lost}": 1}


def test_a_damaged_result_and_what_needs_it(two):
    two.finish()
    two.tell(ResultDamaged(0, two.doing(), "base", "cut"))
    assert retried_and_failed(two.shown()) == {"task_failures_total{kind=score,reason=damaged}": 1,
                                               "task_retries_total{reason=damaged}": 1}


def test_what_is_set_aside_is_not_tried_again(two):
    two.tell(TaskFailed(0, "base", "no"), TaskFailed(0, "base", "no"))
    assert retried_and_failed(two.shown()) == {
        "task_failures_total{kind=baseline,reason=raised}": 2, "task_retries_total{reason=raised}": 1,
        "task_failures_total{kind=baseline,reason=set_aside}": 1, "task_failures_total{kind=score,reason=set_aside}": 2}


def test_what_was_published_does_not_change(two):
    before = two.gauges.snapshot(two.state, two.progress)
    kept = repr(before)
    two.finish()
    two.finish()
    two.tell(TaskFailed(0, two.doing(), "no"), WorkerUp(5))
    assert repr(before) == kept != repr(two.gauges.snapshot(two.state, two.progress))


def test_a_stores_calls_are_timed_and_its_failures_counted(two, tmp_path):
    store = Store.create(tmp_path / "store").timed(two.tally.store_took)
    store.failed()  # a list
    store.clear_failure("0123")  # a removal
    with pytest.raises(StoreError), timing("lease", two.tally.store_took):
        raise StoreError("full")
    (tmp_path / "store" / "store.json").unlink()
    with pytest.raises(StoreError):
        store.clear_failure("0123")
    shown = two.shown()
    assert parts(shown, "store_seconds_count") == {"store_seconds_count{operation=list}": 1,
                                                   "store_seconds_count{operation=write}": 2,
                                                   "store_seconds_count{operation=lease}": 1}
    assert parts(shown, "store_errors") == {"store_errors_total{operation=write}": 1,
                                            "store_errors_total{operation=lease}": 1}


def test_full_accounts_name_what_is_declared():
    assert FULL.edits and set(FULL.phases) == {"load", "baseline", "statistics", "train", "edit", "score", "store"}


def test_locality_is_that_of_neighbours_where_there_are_any(two):
    two.finish(account=Account())
    two.finish(account=Account(scored={"locality.unrelated.exact": (1.0, 4)}))
    assert "metric=locality.unrelated.exact" in "".join(parts(two.shown(), "metric_mean"))
    two.finish(account=FULL)
    told = "".join(parts(two.shown(), "metric_mean"))
    assert "metric=locality.exact" in told and "unrelated" not in told
