"""What commands cost that people wait for: CPU seconds of the whole process, the least of some rounds.

    python -m benchmarks.commands --out benchmarks/commands.json
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.campaign.spec import Campaign
from cluster.plan.planner import plan
from cluster.store.store import Store

CASES = 50
CAMPAIGN = {"name": "commands", "models": ["testbed-gptj"], "editors": ["identity", "t-patcher"],
            "datasets": [{"name": "testbed-cloze", "limit": CASES}]}
TYPO = "name: typo\nmodels: [testbed-gptj]\ndatasets: [testbed-cloze]\neditors: [rmoe]\n"


def filled(folder: Path) -> Path:
    """A store with the results of a small campaign, made in this process."""
    from cluster.workers.executor import TaskExecutor  # loads torch

    planned, store = plan(Campaign.model_validate(CAMPAIGN)), Store.create(folder)
    store.write_campaign(planned.record(datetime.now(UTC)))
    executor = TaskExecutor(store)
    for task in planned.tasks.values():
        executor.run(task)
    return folder


def commands(folder: Path) -> dict[str, tuple[list[str], int, str]]:
    """Of each command its arguments, the code that it ends with, and a word that it says."""
    (folder / "typo.yaml").write_text(TYPO, encoding="utf-8")
    store = str(filled(folder / "store"))
    return {
        "start": (["--help"], 0, "status"),
        "unknown_campaign": (["plan", "quickstrat"], 2, "quickstart"),
        "unknown_editor": (["plan", str(folder / "typo.yaml")], 2, "rome"),
        "unknown_setting": (["plan", "quickstart", "--set", "editors.rome.lyer=3"], 2, "'layer'"),
        "plan_quickstart": (["plan", "quickstart"], 0, "tasks left"),
        "status": (["status", store], 0, "done"),
        "report": (["report", store], 0, "identity"),
    }


def cpu_of(arguments: list[str], code: int, says: str) -> float:
    """CPU seconds of a command. Raises `RuntimeError` where it does not do what it is called for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, "-m", "jobs.cli", *arguments], capture_output=True, text=True, check=False,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != code or says not in result.stdout + result.stderr:
        raise RuntimeError(f"{arguments} ended with {result.returncode}: {result.stdout} {result.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int) -> dict[str, Any]:
    """The commands in turn, so many times."""
    with tempfile.TemporaryDirectory() as folder:
        asked = commands(Path(folder))
        times = [{name: cpu_of(*each) for name, each in asked.items()} for _ in range(rounds)]
    return {"rounds": rounds, "cases": CASES,
            "cpu_seconds": {name: round(min(each[name] for each in times), 3) for name in asked}}


def main(out: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")], rounds: int = 3) -> None:
    """Measure each command, and write what it took."""
    found = measure(rounds)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
