"""The house as its plan has it: imports run one way, no file is in a circle, and few files may load what is heavy."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOMS = ("editors", "evaluators", "cluster", "jobs")  # each may import those before it
HOUSE = Path(__file__).parents[1]
FILES = {".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__"): path
         for room in ROOMS for path in sorted((HOUSE / room).rglob("*.py"))}


def imports(path):
    """Every module that a file imports anywhere, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in FILES else node.module


@cache
def graph():
    """Which files each imports."""
    return {name: {other for other in imports(path) if other in FILES} for name, path in FILES.items()}


def test_no_file_is_in_a_circle():
    assert len(FILES) > 100 and sum(map(len, graph().values())) > 500
    list(TopologicalSorter(graph()).static_order())  # raises CycleError with the circle


def test_imports_run_from_jobs_down_to_editors():
    wrong = [(name, other) for name, others in graph().items() for other in others
             if ROOMS.index(other.split(".")[0]) > ROOMS.index(name.split(".")[0])]
    assert wrong == []


def test_ray_is_for_the_cluster_and_deepspeed_for_gangs():
    users = {package: {name for name, path in FILES.items()
                       if any(module.split(".")[0] == package for module in imports(path))}
             for package in ("ray", "deepspeed")}
    assert users["ray"] and all(name.startswith("cluster.workers.") for name in users["ray"])
    assert users["deepspeed"] == {"cluster.workers.rank", "cluster.workers.zero3"}


def test_files_are_short_enough_to_read():
    assert {name: lines for name, path in FILES.items() if (lines := len(path.read_text().splitlines())) > 370} == {}
