"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
import subprocess
import sys

import pytest
import torch

from editors.core.files import all_finite, atomic, atomic_folder, write_tensors
from editors.core.headers import Header


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


@pytest.fixture
def room():
    """No file may be larger than so many bytes, as where a quota or a disk ends."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_names_the_place_it_was_for(tmp_path, room):
    for path in (tmp_path / "absent" / "x.safetensors", tmp_path / "large.safetensors"):
        room(1 << 12)
        with pytest.raises(OSError) as refused:
            write_tensors(path, Header(kind="test"), {"w": torch.ones(1 << 14)})
        assert refused.value.filename == str(path) and refused.value.errno in (errno.ENOENT, errno.EFBIG)
    (tmp_path / "read.txt").write_text("x" * (1 << 10))
    room(1 << 8)
    with pytest.raises(OSError) as refused, atomic_folder(tmp_path / "folder") as partial:
        shutil.copy(tmp_path / "read.txt", partial / "copied.txt")
    assert refused.value.filename == str(tmp_path / "folder") and refused.value.errno == errno.EFBIG
    with pytest.raises(OSError) as refused, atomic_folder(tmp_path / "folder") as partial:
        (tmp_path / "other.txt").read_text()
    assert refused.value.filename == str(tmp_path / "other.txt")
    assert [each.name for each in tmp_path.iterdir()] == ["read.txt"]


def test_whom_the_user_lets_read_files_may_read_tensors(tmp_path):
    before = os.umask(0o027)
    try:
        write_tensors(tmp_path / "x.safetensors", Header(kind="test"), {"w": torch.ones(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o640


def test_writing_a_file_needs_no_torch():
    program = "import sys, editors.core.files; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_one_number_that_is_not_finite_is_found(dtype):
    numbers = torch.arange(12.0).reshape(3, 4).to(dtype)
    assert all_finite(numbers) and all_finite(numbers[:0])
    odd = (float("nan"),) if dtype == torch.float8_e4m3fn else (float("nan"), float("inf"), -float("inf"))
    for number in odd:
        spoilt = numbers.clone()
        spoilt[1, 2] = number
        assert not all_finite(spoilt)
