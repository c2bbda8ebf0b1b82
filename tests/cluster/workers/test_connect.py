"""A Ray of the command's own: what its workers import, and the folder for its files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from cluster.campaign.spec import WorkerSpec
from cluster.workers import connect
from cluster.workers.connect import code_path, ray_folder, started_ray
from cluster.workers.version import HOME
from editors.core.errors import InputError


def test_names_in_the_folder_are_not_imported_for_what_workers_mean(write_campaign, tmp_path):
    folder, script = tmp_path / "mine", tmp_path / "bin" / "editfleet"
    for package in ("editors", "cluster", "ray"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("raise ImportError('not meant')\n")
    for module in ("statistics", "torch", "typing", "yaml", "deepspeed"):
        (folder / f"{module}.py").write_text("raise ImportError('not meant')\n")
    script.parent.mkdir()  # as that of the installed command: Python puts its own folder first, not the current one
    script.write_text(f"import sys\nsys.path.insert(1, {str(HOME)!r})\nfrom jobs.cli import main\nmain()\n")
    campaign = write_campaign(editors=["identity"], workers={"count": 1, "devices": 2})  # a worker, and ranks
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([sys.executable, str(script), "run", str(campaign), "--out", str(tmp_path / "store")],
                            cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and "4 of 4 tasks done" in result.stdout, result.stdout + result.stderr


def test_workers_get_the_folder_of_code_that_is_not_installed_among_the_packages(monkeypatch):
    assert code_path() == [str(HOME)]
    monkeypatch.setattr(connect.site, "getsitepackages", lambda: [str(HOME)])
    assert code_path() == []


def test_a_long_tmpdir_is_left_for_one_that_holds_sockets(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("a" * 60)))
    with started_ray(WorkerSpec()):
        socket = ray.nodes()[0]["ObjectStoreSocketName"]
    form = re.sub(r"\d", "0", connect.SOCKET)
    assert re.fullmatch(f"/tmp/ray-{os.getuid()}/ray/" + form.replace("0000000", "0{1,7}"), re.sub(r"\d", "0", socket))


def test_a_tmpdir_that_ray_cannot_read_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(connect, "LONGEST_SOCKET", 300)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "M\u00fcller"))
    assert ray_folder() == Path(f"/tmp/ray-{os.getuid()}/ray") and not (tmp_path / "M\u00fcller").exists()


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_the_folder_that_is_set_is_used(monkeypatch, tmp_path, name):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, "tmp")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connect, "LONGEST_SOCKET", 300)
    assert ray_folder() == tmp_path / "tmp" / f"ray-{os.getuid()}" / "ray" and ray_folder().parent.is_dir()


@pytest.mark.parametrize(("place", "reason"), [
    ("/proc/nowhere", "cannot be written to: No such file or directory"),
    ("file", "cannot be written to: File exists"),
    ("file/in", "cannot be written to: Not a directory"),
    ("M\u00fcller", "has letters beyond ASCII"),
    ("/" + "a" * 60, "is too long a path for sockets in it: 61 bytes"),
])
def test_a_ray_tmpdir_that_cannot_be_used_is_refused(monkeypatch, tmp_path, place, reason):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connect, "LONGEST_SOCKET", 107 if place.startswith("/a") else 300)
    Path("file").touch()
    monkeypatch.setenv("RAY_TMPDIR", place)
    with pytest.raises(InputError, match=f"RAY_TMPDIR, '{place}', {reason}.*Set RAY_TMPDIR to a folder"):
        ray_folder()


def test_a_ray_that_does_not_start_is_told_in_a_line(monkeypatch):
    def fail(*arguments, **options):
        raise Exception("the node timed out\nduring startup")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(InputError, match=r"^Ray cannot be started .*/ray' .*: the node timed out during startup$"), \
            started_ray(WorkerSpec()):
        pass
