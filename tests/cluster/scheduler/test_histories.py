"""Whole campaigns on a cluster of the imagination, on random graphs: with no trouble, and with any."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

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
from cluster.scheduler.graph import Status, cull
from cluster.scheduler.state import CampaignState


@st.composite
def campaigns(draw):
    """Tasks whose needs come before them, in any order, and those whose results are there; any may be temporary."""
    nodes = []
    for number in range(draw(st.integers(1, 12))):
        needs = draw(st.sets(st.sampled_from([node.id for node in nodes[-4:]]), max_size=3)) if nodes else ()
        nodes.append(TaskNode(f"t{number}", draw(st.sampled_from("xyz")), tuple(sorted(needs)),
                              draw(st.floats(0, 10, allow_nan=False)), draw(st.sampled_from([3.0, 50.0, 1e9])),
                              draw(st.integers(1, 5)), draw(st.booleans()),
                              draw(st.sampled_from(["score", "stream"])), draw(st.booleans())))
    there = {node.id for node in nodes if draw(st.booleans())}
    return draw(st.permutations(nodes)), there


def dependents(nodes):
    return {node.id: [other.id for other in nodes if node.id in other.needs] for node in nodes}


class Cluster:
    """Carries out instructions, as a driver does, and remembers what a correct campaign may never do."""

    def __init__(self, nodes, there, room):
        self.nodes, self.dependents, self.room = {node.id: node for node in nodes}, dependents(nodes), room
        _, leftover = cull(nodes, there)
        self.there, self.given_up, self.ran = set(there) - leftover, set(), []
        self.worked, self.spent = set(), set()  # workers that have had a task, and those that have had one alone
        self.starting, self.up, self.ever, self.now = set(), {}, set(), 0.0  # `up`: workers, and the task of each
        self.state = CampaignState(nodes, workers=room, there=self.there)
        self.carry_out(self.state.start())

    @property
    def running(self):
        return [task for task in self.up.values() if task]

    def tell(self, event):
        self.carry_out(self.state.handle(event))
        self.check_counts()

    def check_counts(self):
        """Tasks are counted by how far they are, and those are ready that wait for nothing."""
        graph = self.state.graph
        far = {Status.WAITING: "waiting", Status.RUNNING: "running", Status.DONE: "done", Status.NOT_NEEDED: "done",
               Status.GIVEN_UP: "set_aside"}
        ready = {task for task, status in graph.status.items() if status is Status.WAITING
                 and all(graph.status[need] is Status.DONE for need in self.nodes[task].needs)}
        assert set(graph.ready) == ready and list(graph.ready.values()) == sorted(graph.ready.values())
        counted = Counter((self.nodes[task].kind, "ready" if task in ready else far[status])
                          for task, status in graph.status.items())
        assert +graph.counts == counted and min(graph.counts.values()) >= 0

    def carry_out(self, instructions):
        for instruction in instructions:
            match instruction:
                case StartWorker(worker):
                    assert worker not in self.ever
                    self.ever.add(worker)
                    self.starting.add(worker)
                    assert len(self.starting) + len(self.up) <= self.room
                case Retire(worker, reason):
                    assert reason and (worker in self.starting or worker in self.up)
                    self.leave(worker)
                case Assign(worker, task, parts):
                    assert self.up[worker] is None
                    assert task not in self.there | self.given_up | set(self.running)
                    assert set(self.nodes[task].needs) <= self.there
                    assert 1 <= parts <= self.nodes[task].pieces
                    assert worker not in self.spent and not (self.nodes[task].alone and worker in self.worked)
                    self.worked.add(worker)
                    self.spent |= {worker} if self.nodes[task].alone else set()
                    self.up[worker] = task
                    self.ran.append(task)
                case Discard(task):
                    assert self.nodes[task].temporary and self.dependents[task]
                    assert not any(task in self.nodes[at_work].needs for at_work in self.running)
                    self.there.remove(task)
                case Reopen(task):
                    assert task not in self.there | self.given_up | set(self.running)
                case GiveUp(task, reason):
                    assert task not in self.there | self.given_up | set(self.running) and reason
                    self.given_up.add(task)

    def leave(self, worker):
        self.starting.discard(worker)
        self.up.pop(worker, None)

    def happen(self, pick, kind):
        """One of the things that can happen now; if there is no such thing, time passes."""
        self.now += 1
        moving = sorted(self.starting | {worker for worker, task in self.up.items() if task})
        alive = sorted({*self.starting, *self.up})
        if kind == "room":
            self.room = max(pick % 4, 1)
            return self.tell(Room(self.room))
        if kind == "jump":
            self.now += 1e4 * (pick - 50)
            return self.tell(Tick(self.now))
        if kind == "late" and self.ever - set(alive):
            return self.tell(TaskDone(min(self.ever - set(alive)), f"t{pick % 12}"))
        if kind in ("lose", "killed", "node") and alive:
            worker = alive[pick % len(alive)]
            self.leave(worker)
            return self.tell(WorkerLost(worker, "gone", kind == "killed", kind == "node"))
        if not moving:
            return self.tell(Tick(self.now))
        worker = moving[pick % len(moving)]
        if worker in self.starting:
            self.starting.remove(worker)
            self.up[worker] = None
            return self.tell(WorkerUp(worker))
        task, self.up[worker] = self.up[worker], None
        needs = self.nodes[task].needs
        if kind == "fail":
            return self.tell(TaskFailed(worker, task, "boom"))
        if kind == "memory":
            return self.tell(OutOfMemory(worker, task, "no memory"))
        if kind == "damage" and needs:
            damaged = needs[pick % len(needs)]
            self.there.discard(damaged)
            return self.tell(ResultDamaged(worker, task, damaged, "bit flip"))
        self.there.add(task)
        return self.tell(TaskDone(worker, task))

    def check_the_end(self):
        """Every sink is done or given up, and a temporary result is only there for one that was given up."""
        assert self.state.finished
        status = self.state.graph.status
        assert {task for task in status if status[task] is Status.DONE} == self.there
        assert {task for task in status if status[task] is Status.GIVEN_UP} == self.given_up
        assert set(status.values()) <= {Status.DONE, Status.NOT_NEEDED, Status.GIVEN_UP}
        for task, after in self.dependents.items():
            if not after:
                assert task in self.there | self.given_up
            elif self.nodes[task].temporary and task in self.there:
                assert self.given_up.intersection(after)


KINDS = ["go", "go", "go", "fail", "lose", "killed", "node", "memory", "damage", "damage", "room", "jump", "tick",
         "late"]


@settings(max_examples=400, deadline=None)
@given(campaigns(), st.integers(1, 4),
       st.lists(st.tuples(st.integers(0, 99), st.sampled_from(KINDS)), min_size=15, max_size=120))
def test_any_history_ends_with_every_task_done_not_needed_or_given_up(campaign, workers, history):
    cluster, events = Cluster(*campaign, workers), iter(history)
    for _ in range(2000):
        if cluster.state.finished:
            break
        cluster.happen(*next(events, (0, "go")))
    cluster.check_the_end()


@settings(max_examples=200, deadline=None)
@given(campaigns(), st.integers(1, 4), st.lists(st.integers(0, 99), max_size=60))
def test_without_trouble_exactly_what_is_needed_is_done_once(campaign, workers, picks):
    nodes, there = campaign
    cluster, picks, events = Cluster(nodes, there, workers), iter(picks), 0
    while not cluster.state.finished:
        cluster.happen(next(picks, 0), "go")
        events += 1
        assert events < 100

    def wanted(task):
        """A task without a result, that none needs, or one that is wanted does."""
        after = cluster.dependents[task]
        return task not in there and (not after or any(wanted(each) for each in after))

    assert sorted(cluster.ran) == sorted(node.id for node in nodes if wanted(node.id))
    alone = sum(cluster.nodes[task].alone for task in cluster.ran)  # each may take a worker before it and one after
    assert not cluster.given_up and events <= workers + len(cluster.ran) + 2 * alone
    cluster.check_the_end()
    assert CampaignState(nodes, workers=1, there=cluster.there).finished  # running it again has nothing to do
