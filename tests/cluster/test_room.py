"""What `cluster/README.md` says of the room: which folder imports which, and what the retry policy is."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import cluster
from cluster.scheduler.state import RetryPolicy

ROOM = Path(cluster.__file__).parent
README = (ROOM / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def imports():
    """Every module of `cluster`, with the modules it imports, inside of functions too; but for type checkers alone."""
    files = {".".join(("cluster", *path.relative_to(ROOM).with_suffix("").parts)).removesuffix(".__init__"): path
             for path in ROOM.rglob("*.py")}
    found = {}
    for module, path in files.items():
        names, queue = set(), [ast.parse(path.read_text(encoding="utf-8"))]
        while queue:
            node = queue.pop()
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names.update(full if (full := f"{node.module}.{alias.name}") in files else node.module
                             for alias in node.names)
            elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
                queue.extend(ast.iter_child_nodes(node))
        found[module] = names
    return found


def test_no_imports_go_round_in_a_circle(imports):
    own = {module: {name for name in names if name in imports and name != module} for module, names in imports.items()}
    assert len(list(TopologicalSorter(own).static_order())) == len(imports) > 30


def folder(module):
    return module.split(".")[1]


def test_folders_import_what_the_table_says(imports):
    table = {name: set(re.findall(r"`(\w+)`", allowed))
             for name, allowed in re.findall(r"^\| `(\w+)/` \|.*\|([^|]*)\|$", README, re.M)}
    assert table.keys() == {path.name for path in ROOM.iterdir() if (path / "__init__.py").exists()}
    others = table.keys() | {"log"}
    table["workers"] = others
    for module, names in imports.items():
        if module.count(".") > 1:
            used = {folder(name) for name in names if name.startswith("cluster.")} - {folder(module)}
            assert used <= table[folder(module)], f"{module} imports {used}"


def test_only_workers_know_ray(imports):
    users = {folder(module) for module, names in imports.items() if any(name.split(".")[0] == "ray" for name in names)}
    assert users == {"workers"}


def test_the_table_of_retries_has_every_field_and_its_default():
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", README, re.M)
    assert rows == [(name, f"{field.default:g}" if isinstance(field.default, float) else str(field.default))
                    for name, field in RetryPolicy.model_fields.items()]
