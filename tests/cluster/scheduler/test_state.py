"""The campaign's state machine, replayed without a cluster."""

from __future__ import annotations

import pytest

from cluster.scheduler.events import (
    Assign,
    Discard,
    GiveUp,
    OutOfMemory,
    Reopen,
    ResultDamaged,
    Retire,
    Room,
    StartWorker,
    TaskDone,
    TaskFailed,
    TaskNode,
    Tick,
    WorkerLost,
    WorkerUp,
)
from cluster.scheduler.graph import Status
from cluster.scheduler.state import FIRST_PAUSE, LONGEST_PAUSE, LONGEST_TICK, CampaignState, RetryPolicy


def started(nodes, workers=1, there=(), **retries):
    """A state with all its workers up, and what the last of them was told."""
    state = CampaignState(nodes, workers=workers, there=there, retries=RetryPolicy(**retries))
    instructions = [i for start in state.start() for i in state.handle(WorkerUp(start.worker))]
    return state, instructions


def clock(state, now=0.0):
    """Returns what lets time pass, in steps, and gathers the instructions."""
    state.handle(Tick(now))

    def wait(seconds):
        nonlocal now
        told = []
        while seconds > 0:
            now, seconds = now + min(seconds, 1.0), seconds - 1.0
            told += state.handle(Tick(now))
        return told

    return wait


def test_runs_what_is_needed_first_and_frees_what_waited():
    state, told = started([TaskNode("score", needs=("base",)), TaskNode("base")])
    assert told == [Assign(0, "base")]
    assert state.handle(TaskDone(0, "base")) == [Assign(0, "score")]
    assert state.handle(TaskDone(0, "score")) == []
    assert state.finished


def test_what_the_store_has_is_not_done_again():
    _, told = started([TaskNode("score", needs=("base",)), TaskNode("base")], there={"base"})
    assert told == [Assign(0, "score")]


def test_nothing_to_do_starts_no_worker():
    state = CampaignState([TaskNode("a")], workers=4, there={"a"})
    assert state.start() == [] and state.finished


def test_starts_no_more_workers_than_there_are_tasks_to_do():
    state = CampaignState([TaskNode("a"), TaskNode("b"), TaskNode("c")], workers=8, there={"a"})
    assert state.start() == [StartWorker(0), StartWorker(1)]


def test_the_longest_chain_goes_first():
    nodes = [TaskNode("short", cost=3), TaskNode("first", cost=1), TaskNode("last", needs=("first",), cost=5)]
    _, told = started(nodes)
    assert told == [Assign(0, "first")]


def test_equal_tasks_keep_their_order():
    state, told = started([TaskNode("b"), TaskNode("a"), TaskNode("c")])
    order = [told[0].task]
    while not state.finished:
        order += [i.task for i in state.handle(TaskDone(0, order[-1]))]
    assert order == ["b", "a", "c"]


def test_a_worker_keeps_to_the_model_it_holds():
    costs = {"x1": 2, "y1": 9, "x2": 1, "y2": 8}
    nodes = [TaskNode(name, name[0], cost=cost) for name, cost in costs.items()]
    state, told = started(nodes)
    assert told == [Assign(0, "y1")]
    assert state.handle(TaskDone(0, "y1")) == [Assign(0, "y2")]


def test_workers_spread_over_models():
    nodes = [TaskNode("x1", "x", cost=9), TaskNode("x2", "x", cost=8), TaskNode("y1", "y", cost=1)]
    _, told = started(nodes, workers=2)
    assert told == [Assign(0, "x1"), Assign(1, "y1")]


@pytest.mark.parametrize("other", ["nothing", "another model"])
def test_of_two_idle_workers_the_one_with_the_model_goes_on(other):
    nodes = [TaskNode("x1", "x", cost=9), TaskNode("y1", "y"), TaskNode("x2", "x", needs=("x1", "y1"))]
    state = CampaignState(nodes, workers=2, there={"y1"} if other == "nothing" else ())
    first, second = state.start()
    assert state.handle(WorkerUp(second.worker)) == [Assign(1, "x1")]
    if state.handle(WorkerUp(first.worker)):
        state.handle(TaskDone(0, "y1"))
    assert state.handle(TaskDone(1, "x1"))[0] == Assign(1, "x2")


def test_a_lost_worker_is_replaced_and_its_task_done_again():
    state, _ = started([TaskNode("a")])
    wait = clock(state)
    assert state.handle(WorkerLost(0, "node died")) == []
    assert wait(1) == [StartWorker(1)]
    assert state.handle(WorkerUp(1)) == [Assign(1, "a")]


def test_another_worker_takes_a_lost_task_at_once():
    state, _ = started([TaskNode("a", cost=2), TaskNode("b"), TaskNode("c", needs=("a",))], workers=2)
    state.handle(TaskDone(1, "b"))
    assert state.handle(WorkerLost(0, "node died")) == [Assign(1, "a")]


def test_a_task_that_kills_its_workers_is_given_up():
    state, _ = started([TaskNode("a")], max_worker_losses=2)
    wait = clock(state)
    state.handle(WorkerLost(0, "segmentation fault"))
    assert wait(1) == [StartWorker(1)] and state.handle(WorkerUp(1))
    [told] = state.handle(WorkerLost(1, "segmentation fault"))
    assert told == GiveUp("a", "lost its worker 2 times; the last time: segmentation fault")
    assert state.finished


def test_a_lost_node_is_hardly_held_against_a_task():
    state, _ = started([TaskNode("a")], max_worker_losses=2, max_node_losses=4)
    wait, worker = clock(state), 0
    for with_node in (True, True, True, False, True):
        told = state.handle(WorkerLost(worker, "power failure", with_node=with_node))
        if told:
            break
        worker += 1
        assert wait(60) == [StartWorker(worker)] and state.handle(WorkerUp(worker)) == [Assign(worker, "a")]
    assert told == [GiveUp("a", "lost its node 4 times; the last time: power failure")] and worker == 4


def test_a_task_that_raises_twice_is_given_up_with_all_that_needs_it():
    state, _ = started([TaskNode("a", cost=9), TaskNode("b", needs=("a",)), TaskNode("c", needs=("b",)), TaskNode("d")])
    assert state.handle(TaskFailed(0, "a", "ValueError: first")) == [Assign(0, "a")]
    told = state.handle(TaskFailed(0, "a", "ValueError: second"))
    assert told == [GiveUp("a", "ValueError: second"), GiveUp("b", "needs task a, which was given up"),
                    GiveUp("c", "needs task b, which was given up"), Assign(0, "d")]
    state.handle(TaskDone(0, "d"))
    assert state.finished and state.graph.status["d"] is Status.DONE


def test_a_finished_task_stays_done_when_what_it_once_needed_fails():
    nodes = [TaskNode("a"), TaskNode("b", needs=("a",)), TaskNode("c", needs=("a",))]
    state, _ = started(nodes, there={"b"}, max_task_errors=1)
    assert state.handle(TaskFailed(0, "a", "boom")) == [GiveUp("a", "boom"),
                                                        GiveUp("c", "needs task a, which was given up")]
    assert state.graph.status["b"] is Status.DONE


def test_long_chains_do_not_exhaust_the_stack():
    nodes = [TaskNode("0"), *(TaskNode(str(k), needs=(str(k - 1),)) for k in range(1, 5000))]
    state, _ = started(nodes, max_task_errors=1)
    assert len(state.handle(TaskFailed(0, "0", "boom"))) == 5000 and state.finished


def test_workers_that_never_come_up_end_the_campaign():
    state = CampaignState([TaskNode("a"), TaskNode("b", needs=("a",))], workers=1)
    told, wait, starts = state.start(), clock(state), 0
    while told and isinstance(told[0], StartWorker):
        starts += 1
        told = state.handle(WorkerLost(told[0].worker, "no such image")) or wait(100)
    assert 3 < starts < 10
    assert [i.task for i in told] == ["a", "b"] and "no such image" in told[0].reason
    assert state.finished


def test_pauses_grow_until_something_gets_done():
    state, _ = started([TaskNode(str(k)) for k in range(99)], workers=2, max_worker_losses=99)
    wait, pauses = clock(state), []
    for _ in range(10):
        worker = max(state.workers.states)
        assert state.handle(WorkerLost(worker, "preempted")) == []
        pauses.append(0)
        while not (told := wait(1)):
            pauses[-1] += 1
        state.handle(WorkerUp(told[0].worker))
    assert pauses == sorted(pauses) and pauses[0] <= FIRST_PAUSE and pauses[-1] == LONGEST_PAUSE - 1
    state.handle(TaskDone(0, state.workers.states[0].task))
    assert state.handle(WorkerLost(max(state.workers.states), "preempted")) == [] and len(wait(1)) == 1


def test_workers_lost_together_are_replaced_together():
    state, _ = started([TaskNode(str(k)) for k in range(9)], workers=4)
    wait = clock(state)
    for worker in range(3):
        assert state.handle(WorkerLost(worker, "their node died")) == []
    assert wait(1) == [StartWorker(4), StartWorker(5), StartWorker(6)]


def test_workers_that_are_lost_now_and_then_do_not_end_the_campaign():
    state, [told] = started([TaskNode(str(k)) for k in range(10)])
    wait = clock(state)
    while not state.finished:
        [start] = state.handle(WorkerLost(told.worker, "preempted")) + wait(2)  # at work
        [start] = state.handle(WorkerLost(start.worker, "preempted")) + wait(2)  # on its way
        [told] = state.handle(WorkerUp(start.worker))
        told = next(iter(state.handle(TaskDone(told.worker, told.task))), None)
    assert set(state.graph.status.values()) == {Status.DONE}


# --- time


def test_a_worker_that_hangs_is_given_up_and_its_task_done_again():
    state, _ = started([TaskNode("a", limit=100), TaskNode("b", limit=5)], workers=1)
    wait = clock(state)
    assert wait(100) == []
    told = wait(2)
    assert told == [Retire(0, "took longer than 100 s, the time limit of task a", "timeout"), StartWorker(1)]
    assert state.handle(WorkerUp(1)) == [Assign(1, "a")]
    assert state.handle(TaskDone(1, "a")) == [Assign(1, "b")]  # whose time begins now
    assert wait(5) == [] and wait(1)[0] == Retire(1, "took longer than 5 s, the time limit of task b", "timeout")


@pytest.mark.parametrize("jump", [1e6, -1e6])
def test_a_clock_that_jumps_makes_no_worker_hang(jump):
    state, _ = started([TaskNode("a", limit=LONGEST_TICK + 5)])
    state.handle(Tick(1e7))
    assert state.handle(Tick(1e7 + jump)) == []
    assert state.handle(Tick(1e7 + jump + 1)) == []
    assert state.handle(TaskDone(0, "a")) == [] and state.finished


def test_a_campaign_without_workers_is_given_up_in_the_end():
    state = CampaignState([TaskNode("a")], workers=2, retries=RetryPolicy(no_worker_timeout=60))
    [start] = state.start()
    wait = clock(state)
    assert wait(60) == []
    retire, given_up = wait(1)
    assert isinstance(retire, Retire) and retire.worker == start.worker
    assert isinstance(given_up, GiveUp) and given_up.reason.startswith("no worker came up within 60 s; run the")
    assert state.finished


def test_a_campaign_waits_for_room_and_uses_what_it_finds():
    state = CampaignState([TaskNode(str(k)) for k in range(9)], workers=0)
    wait = clock(state)
    assert state.start() == wait(30) == []
    assert state.handle(Room(2)) == [StartWorker(0), StartWorker(1)]
    assert state.handle(Room(3)) == [StartWorker(2)]
    assert state.handle(Room(1)) == []


def test_new_room_is_not_made_to_wait_for_a_pause():
    state, _ = started([TaskNode(str(k)) for k in range(9)])
    clock(state)
    assert state.handle(WorkerLost(0, "node died")) == []
    assert state.handle(Room(2)) == [StartWorker(1), StartWorker(2)]


def test_workers_with_nothing_left_to_do_are_let_go():
    state, _ = started([TaskNode("a", cost=3), TaskNode("b", cost=2), TaskNode("c", needs=("a", "b"))], workers=3)
    assert state.handle(TaskDone(1, "b")) == [Retire(1, "there is nothing left to do for it")]
    assert state.handle(TaskDone(0, "a")) == [Assign(0, "c"), Retire(2, "there is nothing left to do for it")]


# --- memory


def test_a_task_is_done_in_smaller_parts_where_memory_does_not_suffice():
    state, _ = started([TaskNode("a", pieces=5)])
    for parts in (2, 4, 5):
        assert state.handle(OutOfMemory(0, "a", "no memory")) == [Assign(0, "a", parts)]
    assert state.handle(OutOfMemory(0, "a", "no memory")) == [Assign(0, "a", 5)]
    assert state.handle(OutOfMemory(0, "a", "no memory")) == [GiveUp("a", "no memory")]


def test_a_worker_killed_for_its_memory_is_no_loss_while_there_are_smaller_parts():
    state, _ = started([TaskNode("a", pieces=4)], max_worker_losses=1)
    wait = clock(state)
    for parts in (2, 4):
        assert state.handle(WorkerLost(max(state.workers.states), "OOM killer", out_of_memory=True)) == []
        [start] = wait(5)
        assert state.handle(WorkerUp(start.worker)) == [Assign(start.worker, "a", parts)]
    told = state.handle(WorkerLost(start.worker, "OOM killer", out_of_memory=True))
    assert told == [GiveUp("a", "lost its worker 1 times; the last time: OOM killer")]


# --- damage


def test_a_damaged_result_is_made_anew_before_what_needs_it():
    state, told = started(
        [TaskNode("base"), TaskNode("score", needs=("base",)), TaskNode("late", needs=("base",), cost=0.5)],
        there={"base"})
    assert told == [Assign(0, "score")]
    assert state.handle(ResultDamaged(0, "score", "base", "bit flip")) == [Reopen("base"), Assign(0, "base")]
    assert state.handle(TaskDone(0, "base")) == [Assign(0, "score")]
    assert state.handle(TaskDone(0, "score")) == [Assign(0, "late")]


def test_two_that_find_the_same_damage_have_it_mended_once():
    state, _ = started([TaskNode("base"), TaskNode("a", needs=("base",)), TaskNode("b", needs=("base",))], workers=2,
                       there={"base"}, max_damaged_results=2)
    assert state.handle(ResultDamaged(0, "a", "base", "bit flip")) == [Reopen("base"), Assign(0, "base")]
    assert state.handle(ResultDamaged(1, "b", "base", "bit flip")) == []
    assert state.handle(TaskDone(0, "base")) == [Assign(1, "a"), Assign(0, "b")]


def test_a_result_that_is_damaged_over_and_over_is_given_up():
    state, _ = started([TaskNode("base"), TaskNode("a", needs=("base",))], there={"base"}, max_damaged_results=2)
    state.handle(ResultDamaged(0, "a", "base", "bit flip"))
    assert state.handle(TaskDone(0, "base")) == [Assign(0, "a")]
    assert state.handle(ResultDamaged(0, "a", "base", "bit flip")) == [
        Reopen("base"),
        GiveUp("base", "its result was damaged 2 times; the last time: bit flip"),
        GiveUp("a", "needs task base, which was given up")]
    assert state.finished


def test_a_damaged_result_that_can_no_longer_be_made_takes_along_what_needs_it():
    nodes = [TaskNode("model", cost=9), TaskNode("base", needs=("model",)), TaskNode("a", needs=("base",)),
             TaskNode("other", needs=("model",))]
    state, told = started(nodes, there={"base"}, max_task_errors=1, workers=2)
    assert told == [Assign(0, "model"), Assign(1, "a")]
    assert state.handle(TaskFailed(0, "model", "boom")) == [
        GiveUp("model", "boom"), GiveUp("other", "needs task model, which was given up"),
        Retire(0, "there is nothing left to do for it")]
    assert state.handle(ResultDamaged(1, "a", "base", "bit flip")) == [
        Reopen("base"), GiveUp("base", "needs task model, which was given up"),
        GiveUp("a", "needs task base, which was given up")]
    assert state.finished


def test_what_a_damaged_result_takes_is_given_up_once_where_it_cannot_be_had():
    """Of the needs that are gone, one needs another, and both what was given up."""
    nodes = [TaskNode("model", cost=9), TaskNode("n1", needs=("model",)), TaskNode("n2", needs=("n1", "model")),
             TaskNode("base", needs=("n1", "n2")), TaskNode("a", needs=("base",)), TaskNode("other", needs=("model",))]
    state, _ = started(nodes, there={"base"}, max_task_errors=1, workers=2)
    state.handle(TaskFailed(0, "model", "boom"))
    told = state.handle(ResultDamaged(1, "a", "base", "bit flip"))
    assert [type(i) for i in told] == [Reopen] * 3 + [GiveUp] * 4
    assert sorted(i.task for i in told if isinstance(i, GiveUp)) == ["a", "base", "n1", "n2"]
    assert state.finished and state.graph.open == 0


# --- temporary results


PARTS = ("p0", "p1", "p2")
SUMMED = [*(TaskNode(part, temporary=True) for part in PARTS), TaskNode("sum", needs=PARTS),
          TaskNode("a", needs=("sum",))]


def test_temporary_results_go_once_what_needs_them_is_done():
    state, told = started(SUMMED)
    for part in PARTS:
        assert told == [Assign(0, part)]
        told = state.handle(TaskDone(0, part))
    assert told == [Assign(0, "sum")]
    assert state.handle(TaskDone(0, "sum")) == [*map(Discard, PARTS), Assign(0, "a")]
    assert state.handle(TaskDone(0, "a")) == [] and state.finished


def test_a_temporary_result_stays_while_another_task_needs_it():
    nodes = [TaskNode("part", temporary=True), *(TaskNode(name, needs=("part",)) for name in "abc")]
    state, _ = started(nodes, there={"part", "b"})
    assert state.handle(TaskDone(0, "a")) == [Assign(0, "c")]
    assert state.handle(TaskFailed(0, "c", "boom")) == [Assign(0, "c")]
    assert state.handle(TaskDone(0, "c")) == [Discard("part")]


def test_a_temporary_result_stays_for_the_next_run_where_a_task_that_needs_it_was_given_up():
    nodes = [TaskNode("part", temporary=True), TaskNode("a", needs=("part",), cost=2), TaskNode("b", needs=("part",))]
    state, _ = started(nodes, there={"part"}, max_task_errors=1)
    assert state.handle(TaskFailed(0, "a", "boom")) == [GiveUp("a", "boom"), Assign(0, "b")]
    assert state.handle(TaskDone(0, "b")) == [] and state.finished


def test_a_damaged_sum_has_its_parts_made_again_at_once():
    state, told = started(SUMMED, workers=3, there={"sum"}, max_damaged_results=2)
    assert told == [Assign(0, "a")]
    told = state.handle(ResultDamaged(0, "a", "sum", "bit flip"))
    assert told[:4] == [Reopen("sum"), *map(Reopen, PARTS)]
    told += [i for start in told if isinstance(start, StartWorker) for i in state.handle(WorkerUp(start.worker))]
    assert [i.task for i in told if isinstance(i, Assign)] == [*PARTS]
    assert [i for worker in (0, 1, 2) for i in state.handle(TaskDone(worker, PARTS[worker]))
            if isinstance(i, Assign)] == [Assign(0, "sum")]
    assert state.handle(TaskDone(0, "sum"))[:3] == [*map(Discard, PARTS)]


def test_what_made_a_damaged_result_is_made_again_as_far_back_as_it_is_gone():
    chain = [TaskNode("0"), *(TaskNode(str(k), needs=(str(k - 1),)) for k in range(1, 5))]
    state, told = started(chain, there={"0", "3"})
    assert told == [Assign(0, "4")]
    assert state.handle(ResultDamaged(0, "4", "3", "bit flip")) == [Reopen("3"), Reopen("2"), Reopen("1"),
                                                                    Assign(0, "1")]
    assert [state.handle(TaskDone(0, task)) for task in "123"] == [[Assign(0, task)] for task in "234"]


def test_a_sum_that_is_damaged_too_often_does_not_have_its_parts_made_again():
    state, _ = started(SUMMED, there={"sum"}, max_damaged_results=1)
    assert [type(i) for i in state.handle(ResultDamaged(0, "a", "sum", "bit flip"))] == [Reopen, GiveUp, GiveUp]
    assert state.finished


def test_damage_of_something_else_is_a_failure():
    state, _ = started([TaskNode("a"), TaskNode("b")], max_task_errors=1)
    assert state.handle(ResultDamaged(0, "a", "b", "strange"))[0] == GiveUp("a", "strange")


def test_events_of_a_lost_worker_change_nothing():
    state, _ = started([TaskNode("a")])
    state.handle(WorkerLost(0, "cut off"))
    assert state.handle(TaskDone(0, "a")) == []
    assert state.graph.status["a"] is Status.WAITING


def test_a_report_about_another_task_is_ignored():
    state, _ = started([TaskNode("a"), TaskNode("b")])
    state.handle(TaskDone(0, "b"))
    assert state.graph.status == {"a": Status.RUNNING, "b": Status.WAITING}


def test_unknown_needs_and_cycles_are_refused():
    with pytest.raises(ValueError, match="ghost"):
        CampaignState([TaskNode("a", needs=("ghost",))], workers=1)
    with pytest.raises(ValueError):
        CampaignState([TaskNode("a", needs=("b",)), TaskNode("b", needs=("a",))], workers=1)


def test_a_task_to_be_done_alone_has_a_worker_of_its_own():
    nodes = [TaskNode("a", "m"), TaskNode("x", "m", ("a",), alone=True), TaskNode("y", "m", ("a",), alone=True)]
    state = CampaignState(nodes, workers=1)
    assert state.start() == [StartWorker(0)]
    assert state.handle(WorkerUp(0)) == [Assign(0, "a")]
    # The worker that has done `a` goes, and one comes that has done nothing.
    retired, started = state.handle(TaskDone(0, "a"))
    assert isinstance(retired, Retire) and retired.worker == 0 and started == StartWorker(1)
    assert state.handle(WorkerUp(1)) == [Assign(1, "x")]
    retired, started = state.handle(TaskDone(1, "x"))
    assert isinstance(retired, Retire) and retired.worker == 1 and started == StartWorker(2)
    assert state.handle(WorkerUp(2)) == [Assign(2, "y")]
    assert [type(each) for each in state.handle(TaskFailed(2, "y", "no"))] == [Retire, StartWorker]
    assert state.handle(WorkerUp(3)) == [Assign(3, "y")]
    assert [type(each) for each in state.handle(TaskDone(3, "y"))] == [Retire] and state.finished
