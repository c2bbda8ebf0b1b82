"""Folders of processes, real ones that are killed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cluster.workers.scratch import Scratch

OWNER = """
import sys
from cluster.workers.scratch import Scratch

folder = Scratch(sys.argv[1]).folder
(folder / "weights").write_bytes(b"x" * 100)
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path):
    """A function that starts a process with a folder in `tmp_path`; returns it and the folder's path."""
    running = []

    def start():
        running.append(subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": ":".join(sys.path)}))
        return running[-1], running[-1].stdout.readline().strip()

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_who_comes_next_clears_away_what_the_dead_left_and_nothing_else(owner, tmp_path):
    (tmp_path / "mine").mkdir()
    (killed, left), (_, used) = owner(), owner()
    killed.kill()
    killed.wait()
    scratch = Scratch(tmp_path)
    assert {str(path) for path in tmp_path.iterdir()} == {str(tmp_path / "mine"), left, used}  # not asked for yet
    mine = str(scratch.folder)
    assert {str(path) for path in tmp_path.iterdir()} == {str(tmp_path / "mine"), used, mine}
    assert str(Scratch(tmp_path).folder) not in (mine, used)
    assert str(scratch.folder) == mine


def test_a_folder_that_was_removed_is_made_anew(tmp_path):
    scratch = Scratch(tmp_path / "not" / "there")
    scratch.remove()
    first = scratch.folder
    scratch.remove()
    assert not first.exists() and scratch.folder.is_dir() and [scratch.folder] == list(first.parent.iterdir())


def test_many_at_once_each_have_a_folder(owner, tmp_path):
    owners = [owner() for _ in range(4)]
    assert len({folder for _, folder in owners}) == 4 == len(list(tmp_path.iterdir()))
