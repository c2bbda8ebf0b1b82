"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from editors.core.files import atomic


def test_a_file_appears_when_all_of_it_is_written(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with atomic(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old" and partial.parent == tmp_path
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_finished_changes_nothing(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic(path) as partial:
        partial.write_text("new")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_takes_its_name_once_the_disk_has_it(tmp_path, monkeypatch):
    path = tmp_path / "note.txt"
    path.write_text("old")

    def full(_file):
        assert path.read_text() == "old"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), atomic(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_two_that_write_one_file_do_not_meet(tmp_path):
    with atomic(tmp_path / "x") as first, atomic(tmp_path / "x") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "x").read_text() == "first"  # the last to end


def test_writing_a_file_needs_no_torch():
    program = "import sys, editors.core.files; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
