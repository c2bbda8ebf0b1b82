"""What evaluators import: only rooms below their own, and nothing heavy before it is used."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import evaluators

#: Every room imports those before it alone.
ROOMS = ("cases", "texts", "files", "audit", "testbed", "realworld", "models", "datasets", "metering", "scoring",
         "protocols", "kept", "report", "portability", "harness")
HEAVY = ("torch", "transformers", "datasets", "pandas", "openai", "lm_eval")


def rooms():
    """(room, imported room, where) of every import between rooms, also of those inside functions."""
    folder = Path(evaluators.__file__).parent
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else \
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.startswith("evaluators.") and (other := name.split(".")[1]) != room:
                    yield room, other, f"{path.relative_to(folder)}: {name}"


def test_imports_between_rooms_run_one_way():
    found = list(rooms())
    assert len(found) > 50
    assert [where for room, other, where in found if ROOMS.index(other) >= ROOMS.index(room)] == []


@pytest.mark.parametrize("program", [
    "from evaluators.datasets import DatasetSpec, load_dataset; "
    "load_dataset(DatasetSpec(name='testbed-cloze', limit=9))",
    "from evaluators.datasets import read_corpus; next(read_corpus('testbed'))",
    "import evaluators.report.tables, evaluators.report.compare", "import evaluators.portability.review",
    "import evaluators.audit", "import evaluators.harness"])
def test_nothing_heavy_is_imported(program):
    check = f"{program}\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    root = str(Path(evaluators.__file__).parents[1])
    result = subprocess.run([sys.executable, "-c", check], env={**os.environ, "PYTHONPATH": root}, check=True,
                            capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
