"""A store that fails: full, read-only, deleted. Each is a `StoreError` that names the cure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.stores import PATCH, ROWS, campaign, files, rows, write_patch
from typer.testing import CliRunner

from cluster.store.errors import StoreError
from cluster.store.store import Failure, ResultKey, Store
from editors.core.errors import InputError
from jobs.cli import app


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


WRITES = {"table": lambda store: store.write_table(ROWS, rows(0.1), {}), "artefact": write_patch,
          "campaign": lambda store: store.write_campaign(campaign("c")),
          "failure": lambda store: store.write_failure(Failure(task="a1", title="t", reason="r")),
          "probe": Store.probe}


def refuse(number):
    def raising(*args, **kwargs):
        raise OSError(number, os.strerror(number))
    return raising


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize(("number", "message"), [
    (28, "No space left on device; its disk is full: free some space"), (122, "quota .*free some space"),
    (30, "Read-only file system.*choose another --out"), (13, "Permission denied; .*the right to write"),
    (5, "Input/output error; see that its disk")])
def test_a_write_that_the_system_refuses(store, monkeypatch, write, number, message):
    """By a pretended error: permission bits do not stop root, and no full or read-only disk is at hand."""
    before = files(store)
    with monkeypatch.context() as broken:
        broken.setattr("pathlib.Path.touch", refuse(number))
        with pytest.raises(StoreError, match=f"cannot write to store '{store.root}': .*{message}.*same command again"):
            write(store)
    assert files(store) == before
    write(store)


def test_a_disk_that_fills_up_while_an_artefact_is_written(store, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", refuse(28))
        with pytest.raises(StoreError, match="disk is full"):
            write_patch(store)
    assert files(store) == ["store.json"]


SCRIPT = """
import resource, sys
from cluster.store.errors import StoreError
from cluster.store.store import ResultKey, Store
from support.stores import rows, write_patch

store = Store.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
for write in (lambda: write_patch(store, size=5000),
              lambda: store.write_table(ResultKey("rows", "a1"), rows(*(k / 7 for k in range(100000))), {})):
    try:
        write()
    except StoreError as error:
        print(error)
write_patch(store, size=50)
"""


def test_a_write_that_the_kernel_cuts_short(store):
    """For real: past a limit on the size of files, a write fails half way, as on a full disk."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", SCRIPT, store.root], env=environment, capture_output=True, text=True,
                            timeout=300)
    assert result.returncode == 0, result.stderr
    assert [line.count("may not be so large") for line in result.stdout.splitlines()] == [1, 1]
    assert files(store) == ["artefacts/c0.safetensors", "provenance/c0.json", "store.json"]
    assert store.has(PATCH)


def test_a_task_that_fails_for_reasons_of_its_own_is_no_fault_of_the_store(store, tmp_path):
    with pytest.raises(FileNotFoundError), store.new_artefact(PATCH, {}) as path:
        shutil.copyfile(tmp_path / "shipped", path)
    with pytest.raises(ZeroDivisionError), store.new_artefact(PATCH, {}):
        raise ZeroDivisionError
    assert files(store) == ["store.json"]


@pytest.mark.parametrize("harm", [shutil.rmtree, lambda root: (root / "store.json").unlink(),
                                  lambda root: root.rename(root.with_name("moved"))],
                         ids=["folder", "store.json", "moved"])
def test_a_store_that_is_deleted_under_a_writer_is_not_made_again(store, harm):
    root = Path(store.root)
    write_patch(store)
    with store.lease("c") as lease:
        harm(root)
        before = sorted(root.rglob("*"))
        for use in (*WRITES.values(), lambda store: lease.renew({}), lambda store: store.read_table(ROWS),
                    lambda store: store.done([ResultKey("baselines", "b")]) or store.local(ResultKey("baselines", "b")),
                    lambda store: store.clear_failure("a1")):
            with pytest.raises(StoreError, match=r"was deleted or moved while it was used \(there is no store.json"):
                use(store)
        with pytest.raises(StoreError, match="was deleted"), store.checkpoint(PATCH):
            pass
    assert sorted(root.rglob("*")) == before


def test_a_store_that_is_deleted_while_an_artefact_is_made(store):
    with pytest.raises(StoreError, match="was deleted"), store.new_artefact(PATCH, {}) as path:
        shutil.rmtree(store.root)
        path.write_bytes(b"x")
    assert not Path(store.root).exists()


def test_a_disk_that_does_not_give_back_what_was_written(store, monkeypatch):
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.cat_file", lambda *_: b"something else")
    with pytest.raises(StoreError, match="does not give back"):
        store.probe()
    assert files(store) == ["store.json"]


def test_a_store_that_cannot_be_written_is_refused_at_the_start(store, monkeypatch):
    monkeypatch.setattr("pathlib.Path.touch", refuse(30))
    with pytest.raises(InputError, match="cannot write to store"):
        Store.create(store.root)
    assert Store.open(store.root)


def test_a_command_ends_with_1_and_the_reason(store, monkeypatch):
    store.write_campaign(campaign("c"))
    monkeypatch.setattr("os.scandir", refuse(13))
    result = CliRunner().invoke(app, ["status", store.root])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: cannot read store '{store.root}': Permission denied")
