"""The campaign's state machine, replayed without a cluster."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.state import (
    Assign,
    CampaignState,
    Node,
    SetAside,
    StartWorker,
    Status,
    TaskDone,
    TaskFailed,
    WorkerLost,
    WorkerUp,
)


def started(nodes, workers=1, **options):
    """A state with all its workers up, and what the last of them was told."""
    state = CampaignState(nodes, workers=workers, **options)
    instructions = [i for start in state.start() for i in state.handle(WorkerUp(start.worker))]
    return state, instructions


def test_runs_what_is_needed_first_and_frees_what_waited():
    state, told = started([Node("score", needs=("base",)), Node("base")])
    assert told == [Assign(0, "base")]
    assert state.handle(TaskDone(0, "base")) == [Assign(0, "score")]
    assert state.handle(TaskDone(0, "score")) == []
    assert state.finished


def test_what_the_store_has_is_not_done_again():
    _, told = started([Node("score", needs=("base",)), Node("base")], done={"base"})
    assert told == [Assign(0, "score")]


def test_nothing_to_do_starts_no_worker():
    state = CampaignState([Node("a")], workers=4, done={"a"})
    assert state.start() == [] and state.finished


def test_starts_no_more_workers_than_there_are_tasks_to_do():
    state = CampaignState([Node("a"), Node("b"), Node("c")], workers=8, done={"a"})
    assert state.start() == [StartWorker(0), StartWorker(1)]


def test_the_longest_chain_goes_first():
    nodes = [Node("short", cost=3), Node("first", cost=1), Node("last", needs=("first",), cost=5)]
    _, told = started(nodes)
    assert told == [Assign(0, "first")]


def test_equal_tasks_keep_their_order():
    state, told = started([Node("b"), Node("a"), Node("c")])
    order = [told[0].task]
    while not state.finished:
        order += [i.task for i in state.handle(TaskDone(0, order[-1]))]
    assert order == ["b", "a", "c"]


def test_a_worker_keeps_to_the_model_it_holds():
    nodes = [Node("x1", "x", cost=2), Node("y1", "y", cost=9), Node("x2", "x", cost=1), Node("y2", "y", cost=8)]
    state, told = started(nodes)
    assert told == [Assign(0, "y1")]
    assert state.handle(TaskDone(0, "y1")) == [Assign(0, "y2")]


def test_workers_spread_over_models():
    nodes = [Node("x1", "x", cost=9), Node("x2", "x", cost=8), Node("y1", "y", cost=1)]
    _, told = started(nodes, workers=2)
    assert told == [Assign(0, "x1"), Assign(1, "y1")]


@pytest.mark.parametrize("other", ["nothing", "another model"])
def test_of_two_idle_workers_the_one_with_the_model_goes_on(other):
    nodes = [Node("x1", "x", cost=9), Node("y1", "y"), Node("x2", "x", needs=("x1", "y1"))]
    state = CampaignState(nodes, workers=2, done={"y1"} if other == "nothing" else ())
    first, second = state.start()
    assert state.handle(WorkerUp(second.worker)) == [Assign(1, "x1")]
    if state.handle(WorkerUp(first.worker)):
        state.handle(TaskDone(0, "y1"))
    assert state.handle(TaskDone(1, "x1")) == [Assign(1, "x2")]


def test_a_lost_worker_is_replaced_and_its_task_done_again():
    state, _ = started([Node("a")])
    assert state.handle(WorkerLost(0, "node died")) == [StartWorker(1)]
    assert state.handle(WorkerUp(1)) == [Assign(1, "a")]


def test_another_worker_takes_a_lost_task_at_once():
    state, _ = started([Node("a", cost=2), Node("b")], workers=2)
    state.handle(TaskDone(1, "b"))
    assert Assign(1, "a") in state.handle(WorkerLost(0, "node died"))


def test_a_task_that_kills_its_workers_is_set_aside():
    state, _ = started([Node("a")], losses=2)
    state.handle(WorkerLost(0, "out of memory"))
    state.handle(WorkerUp(1))
    [told] = state.handle(WorkerLost(1, "out of memory"))
    assert told == SetAside("a", "lost its worker 2 times; the last time: out of memory")
    assert state.finished


def test_a_task_that_raises_twice_is_set_aside_with_all_that_needs_it():
    state, _ = started([Node("a", cost=9), Node("b", needs=("a",)), Node("c", needs=("b",)), Node("d")])
    assert state.handle(TaskFailed(0, "a", "ValueError: first")) == [Assign(0, "a")]
    told = state.handle(TaskFailed(0, "a", "ValueError: second"))
    assert told == [SetAside("a", "ValueError: second"), SetAside("b", "needs task a, which was set aside"),
                    SetAside("c", "needs task b, which was set aside"), Assign(0, "d")]
    state.handle(TaskDone(0, "d"))
    assert state.finished and state.status["d"] is Status.DONE


def test_a_finished_task_stays_done_when_what_it_once_needed_fails():
    state, _ = started([Node("a"), Node("b", needs=("a",))], done={"b"}, attempts=1)
    assert state.handle(TaskFailed(0, "a", "boom")) == [SetAside("a", "boom")]
    assert state.status["b"] is Status.DONE


def test_long_chains_do_not_exhaust_the_stack():
    nodes = [Node("0"), *(Node(str(k), needs=(str(k - 1),)) for k in range(1, 5000))]
    state, _ = started(nodes, attempts=1)
    assert len(state.handle(TaskFailed(0, "0", "boom"))) == 5000 and state.finished


def test_workers_that_never_come_up_end_the_campaign():
    state = CampaignState([Node("a"), Node("b", needs=("a",))], workers=1)
    instructions, starts = state.start(), 0
    while instructions and isinstance(instructions[0], StartWorker):
        starts += 1
        instructions = state.handle(WorkerLost(instructions[0].worker, "no such image"))
    assert starts < 10
    assert [i.task for i in instructions] == ["a", "b"] and "no such image" in instructions[0].reason
    assert state.finished


def test_workers_that_are_lost_now_and_then_do_not_end_the_campaign():
    state, [told] = started([Node(str(k)) for k in range(10)])
    while not state.finished:
        [start] = state.handle(WorkerLost(told.worker, "preempted"))  # at work
        [start] = state.handle(WorkerLost(start.worker, "preempted"))  # on its way
        [told] = state.handle(WorkerUp(start.worker))
        told = next(iter(state.handle(TaskDone(told.worker, told.task))), None)
    assert set(state.status.values()) == {Status.DONE}


def test_events_of_a_lost_worker_change_nothing():
    state, _ = started([Node("a")])
    state.handle(WorkerLost(0, "cut off"))
    assert state.handle(TaskDone(0, "a")) == []
    assert state.status["a"] is Status.WAITING


def test_a_report_about_another_task_is_ignored():
    state, _ = started([Node("a"), Node("b")])
    state.handle(TaskDone(0, "b"))
    assert state.status == {"a": Status.RUNNING, "b": Status.WAITING}


def test_unknown_needs_and_cycles_are_refused():
    with pytest.raises(ValueError, match="ghost"):
        CampaignState([Node("a", needs=("ghost",))], workers=1)
    with pytest.raises(ValueError):
        CampaignState([Node("a", needs=("b",)), Node("b", needs=("a",))], workers=1)


@st.composite
def campaigns(draw):
    """Tasks whose needs come before them, some of them done, in any order."""
    nodes = []
    for number in range(draw(st.integers(1, 12))):
        needs = draw(st.sets(st.sampled_from([node.id for node in nodes]), max_size=3)) if nodes else ()
        nodes.append(Node(f"t{number}", draw(st.sampled_from("xyz")), tuple(sorted(needs)),
                          draw(st.floats(0, 10, allow_nan=False))))
    done = draw(st.sets(st.sampled_from([node.id for node in nodes])))
    return draw(st.permutations(nodes)), done


class Cluster:
    """Carries out instructions and remembers what a correct campaign may never do."""

    def __init__(self, state, done):
        self.state, self.done, self.set_aside = state, set(done), set()
        self.starting, self.idle, self.busy, self.ever = set(), set(), {}, set()

    def carry_out(self, instructions):
        for instruction in instructions:
            match instruction:
                case StartWorker(worker):
                    assert worker not in self.ever
                    self.ever.add(worker)
                    self.starting.add(worker)
                case Assign(worker, task):
                    assert worker in self.idle
                    assert task not in self.done | self.set_aside | set(self.busy.values())
                    assert set(self.state.nodes[task].needs) <= self.done
                    self.idle.remove(worker)
                    self.busy[worker] = task
                case SetAside(task, reason):
                    assert task not in self.done | self.set_aside and reason
                    self.set_aside.add(task)

    def happen(self, pick, kind):
        """One of the things that can happen now. Only trouble befalls idle workers."""
        moving = sorted(self.starting | set(self.busy))
        alive = sorted({*moving, *self.idle})
        if kind == "lose":
            worker = alive[pick % len(alive)]
            for group in (self.starting, self.idle):
                group.discard(worker)
            self.busy.pop(worker, None)
            return self.carry_out(self.state.handle(WorkerLost(worker, "gone")))
        worker = moving[pick % len(moving)]
        self.idle.add(worker)
        if worker in self.starting:
            self.starting.remove(worker)
            return self.carry_out(self.state.handle(WorkerUp(worker)))
        task = self.busy.pop(worker)
        if kind == "fail":
            return self.carry_out(self.state.handle(TaskFailed(worker, task, "boom")))
        self.done.add(task)
        return self.carry_out(self.state.handle(TaskDone(worker, task)))


@settings(max_examples=200, deadline=None)
@given(campaigns(), st.integers(1, 4),
       st.lists(st.tuples(st.integers(0, 99), st.sampled_from(["go", "go", "fail", "lose"])), max_size=80))
def test_any_history_ends_with_every_task_done_or_set_aside(campaign, workers, history):
    nodes, done = campaign
    state = CampaignState(nodes, workers=workers, done=done)
    cluster = Cluster(state, done)
    cluster.carry_out(state.start())
    events = iter(history)
    while not state.finished:
        assert cluster.starting or cluster.busy  # never stuck: something is always on its way
        assert len(cluster.starting | cluster.idle | set(cluster.busy)) <= workers
        cluster.happen(*next(events, (0, "go")))
    assert cluster.done | cluster.set_aside == set(state.nodes) and not cluster.done & cluster.set_aside
    assert {task for task, status in state.status.items() if status is Status.DONE} == cluster.done
    for task in cluster.set_aside:
        assert not any(task in state.nodes[other].needs for other in cluster.done - set(done))


@settings(max_examples=50, deadline=None)
@given(campaigns(), st.integers(1, 4))
def test_without_trouble_everything_is_done_once(campaign, workers):
    nodes, done = campaign
    state = CampaignState(nodes, workers=workers, done=done)
    cluster = Cluster(state, done)
    cluster.carry_out(state.start())
    events = 0
    while not state.finished:
        cluster.happen(0, "go")
        events += 1
    assert cluster.done == set(state.nodes)
    assert events <= workers + len(nodes) - len(done)
