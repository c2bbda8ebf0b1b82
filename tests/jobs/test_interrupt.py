"""The real command on a real, local Ray: interrupted, taken up again, and interrupted once more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from support.processes import LIMIT, marked, wait_for

MARK = "EDITFLEET_TEST_RUN"
CASES = 6


@pytest.fixture
def command(write_campaign, tmp_path):
    """The `run` command of a campaign whose edits take a while, and an environment that marks all its processes."""
    path = write_campaign(chunk=1, datasets=[{"name": "testbed-cloze", "limit": CASES}], workers={"count": 1},
                          editors=[{"name": "ft", "config": {"layers": [1], "steps": 500, "stop_loss": 0}}])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), MARK: uuid.uuid4().hex}
    return [sys.executable, "-m", "jobs.cli", "run", str(path), "--out", str(tmp_path / "store")], environment


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes through /proc")
def test_an_interrupted_run_cleans_up_and_can_be_taken_up_again(command, tmp_path):
    arguments, environment = command

    def rows():
        """When each result was written that is there as a whole."""
        provenance = tmp_path / "store" / "provenance"
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store" / "rows").glob("[!.]*")
                if (provenance / f"{path.stem}.json").exists()}

    kept = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        # In a group of its own: a terminal's Ctrl-C goes to the whole group, `ray job stop` to the process.
        process = subprocess.Popen(arguments, env=environment, start_new_session=True, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda process=process, kept=kept: process.poll() is not None or rows().keys() > kept.keys())
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        stdout, stderr = process.communicate(timeout=LIMIT)
        assert process.returncode == 130, stdout + stderr
        assert "run the same command again" in stderr and "Traceback" not in stderr
        wait_for(lambda: not marked(MARK, environment[MARK]))
        assert kept.items() < rows().items() and len(rows()) < CASES
        kept = rows()
