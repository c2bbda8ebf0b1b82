"""Which tasks of a campaign have to be done at all."""

from __future__ import annotations

import pytest

from cluster.scheduler.events import TaskNode
from cluster.scheduler.graph import Culled, Status, TaskGraph, cull

SUMMED = [TaskNode("p0", temporary=True), TaskNode("p1", temporary=True), TaskNode("sum", needs=("p0", "p1")),
          TaskNode("base"), TaskNode("a", needs=("base", "sum")), TaskNode("b", needs=("base",))]


@pytest.mark.parametrize(("there", "to_do", "leftover"), [
    ("", "p0 p1 sum base a b", ""),
    ("a b", "", ""),  # what they were made of was deleted
    ("a b sum base", "", ""),
    ("a sum", "base b", ""),
    ("a b p0", "", "p0"),  # nobody removed it
    ("sum base p0 p1", "a b", "p0 p1"),
    ("base p1", "p0 sum a b", ""),
])
def test_only_what_a_missing_sink_needs_is_done(there, to_do, leftover):
    assert cull(SUMMED, set(there.split())) == Culled(set(to_do.split()), set(leftover.split()))


def test_a_temporary_result_that_no_task_needs_is_what_was_asked_for():
    assert cull([TaskNode("a", temporary=True)], {"a"}) == Culled(set(), set())
    assert cull([TaskNode("a", temporary=True)], set()) == Culled({"a"}, set())


def test_what_is_not_needed_is_told_apart_from_what_is_done():
    graph = TaskGraph(SUMMED, {"sum", "b"})
    assert graph.status == {"p0": Status.NOT_NEEDED, "p1": Status.NOT_NEEDED, "sum": Status.DONE,
                            "base": Status.WAITING, "a": Status.WAITING, "b": Status.DONE}
    assert graph.open == 2
