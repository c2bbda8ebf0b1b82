"""Two campaigns in stores, held against each other: their tasks, what is missing of them, and their numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cluster.store.records import TaskRecord
from cluster.store.source import Source
from evaluators.report.costs import parted
from evaluators.report.differences import (
    Cell,
    CellDifference,
    ChangedNumbers,
    cells,
    changed_numbers,
    compare_cells,
    of_tasks,
)

SideName = Literal["A", "B"]
What = Literal["only", "missing", "given up"]
PREPARED = ("statistics", "moments", "train")  # kinds of tasks whose settings decide what others yield
FOLLOWS = ("titles", "cases")  # of a task's identity: what it is called; and cases, which have a reason of their own
SHOWN = 3  # of the values that a setting has
Facts = Mapping[str, str]


@dataclass(frozen=True)
class Unlike:
    """A task that is planned on one side alone, or whose result is missing or was given up on a side, and why."""

    side: SideName
    what: What
    task: str
    kind: str
    title: str
    reason: str = ""


@dataclass(frozen=True)
class Reasons:
    """What provenance tells of why numbers of a cell differ, or (without a cell) those of tasks that are the same."""

    cell: Cell | None
    told: tuple[str, ...]


@dataclass(frozen=True)
class StoresDiffer:
    """All that two campaigns do not have in common; so many tasks were `compared` by their numbers."""

    compared: int
    tasks: tuple[Unlike, ...]
    changed: tuple[ChangedNumbers, ...]
    cells: tuple[CellDifference, ...]
    reasons: tuple[Reasons, ...]

    @property
    def same(self) -> bool:
        return not (self.tasks or self.changed or self.cells)


def compare_sides(first: Source, second: Source, tolerance: float = 0.0) -> StoresDiffer:
    """What differs, and why where provenance tells it. Numbers of tasks that both have may differ by `tolerance`. Costs
    are left out: they are measured, and never the same."""
    sides = (first, second)
    scores = (parted(first.rows)[0], parted(second.rows)[0])
    shared = first.tasks.keys() & second.tasks.keys()
    single = [{task for task in side.tasks if task not in shared} for side in sides]
    both = shared & first.standing.done & second.standing.done
    changed = changed_numbers(of_tasks(scores[0], both), of_tasks(scores[1], both), tolerance)
    found = [cells(rows) for rows in scores]
    others = [cell for cell in found[0].keys() & found[1].keys()
              if (found[0][cell] & single[0]) or (found[1][cell] & single[1])]
    compared = compare_cells(*(of_tasks(rows, set().union(*(of[cell] for cell in others)))
                               for rows, of in zip(scores, found, strict=True))) if others else []
    reasons = [Reasons(cell, tuple(_why(sides, [of[cell] for of in found]))) for cell in sorted(others)]
    if any(each.changed for each in changed):
        reasons.append(Reasons(None, tuple(_why(sides, [both, both]))))
    unlike = [each for name, side, own in zip(get_args(SideName), sides, single, strict=True)
              for each in _unlike(name, side, own)]
    numbered = set().union(*(tasks for of in found for tasks in of.values()))
    return StoresDiffer(len(both & numbered), tuple(unlike), tuple(changed), tuple(compared), tuple(reasons))


def _unlike(name: SideName, side: Source, own: set[str]) -> Iterator[Unlike]:
    failures = {failure.task: failure for failure in side.standing.failures}
    for task in side.record.tasks:
        if task.id in own:
            yield Unlike(name, "only", task.id, task.kind, task.title)
        if task.id in failures:
            yield Unlike(name, "given up", task.id, task.kind, task.title, failures[task.id].summary)
        elif task.id not in side.standing.done:
            yield Unlike(name, "missing", task.id, task.kind, task.title)


# --- why


def _why(sides: Sequence[Source], tasks: Sequence[Iterable[str]]) -> Iterator[str]:
    """What the provenance of some tasks on either side, and of what was prepared for them, tells that differs."""
    first, second = (_facts_of(side, chosen) for side, chosen in zip(sides, tasks, strict=True))
    for name in dict.fromkeys([*first, *second]):
        if first[name] != second[name]:
            yield (_of_cases(first[name], second[name]) if name == "cases" else
                   f"{name}: {_told(first[name])} in A, {_told(second[name])} in B")


def _of_cases(first: set[str], second: set[str]) -> str:
    known = "all of them others" if not first & second else "some of them the same"
    return f"cases: {len(first)} chunks in A, {len(second)} in B, {known} (another data set, limit or chunk)"


def _told(values: set[str]) -> str:
    shown = sorted(values)[:SHOWN]
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return (" or ".join(shown) or "nothing") + more


def _facts_of(side: Source, chosen: Iterable[str]) -> dict[str, set[str]]:
    """All values that each fact has among these tasks and what was prepared for them."""
    known = side.tasks
    own = [known[task] for task in chosen if task in known]
    needed, queue = dict[str, TaskRecord](), list(own)
    while queue:
        for need in queue.pop().needs:
            if need not in needed:
                needed[need] = known[need]
                queue.append(known[need])
    prepared = [task for task in needed.values() if task.kind in PREPARED]
    found: dict[str, set[str]] = defaultdict(set)
    for facts in side.store.provenances((task.key for task in (*own, *prepared)), _facts):
        for name, value in facts.items():
            found[name].add(value)
    return found


def _facts(about: Mapping[str, Any]) -> Facts:
    """What a provenance tells of all that numbers may hang on; of a task that prepares, behind its kind."""
    kind, identity = about.get("kind"), about.get("identity")
    identity = identity if isinstance(identity, dict) else {}
    if kind in PREPARED:
        return dict(_flat(identity, str(kind)))
    model = about.get("model")
    model = model if isinstance(model, dict) else {}
    facts = dict(_flat({name: value for name, value in identity.items() if name not in FOLLOWS}))
    facts |= dict(_flat({name: model.get(name) for name in ("digest", "dtype", "threads")}, "model"))
    facts |= {"model.fused": "True"} if model.get("fused") else {}
    facts |= dict(_flat({"device": about.get("device"), "versions": about.get("versions")}))
    return facts | ({"cases": str(identity["cases"])} if "cases" in identity else {})


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a mapping, each by the names that lead there."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(value)
