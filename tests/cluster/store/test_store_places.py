"""Where a store can be, and what killed processes leave in it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cluster.store.local import UNTOUCHED
from cluster.store.store import Store, open_files
from editors.core.errors import InputError


@pytest.mark.parametrize("place", ["", " ", "\t\n", "file://", "a\0b", "memory://x", "zip://x", "zip://x.zip", "tar://a::b",
                                   "http://127.0.0.1/x", "https://127.0.0.1/x", "reference://x", "jupyter://x",
                                   "ftp://127.0.0.1:1/x", "cached://x", "://", "nonsense://x"])
def test_a_place_that_cannot_hold_a_store_is_refused(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is no place for a store"):
        Store.create(place)
    assert not list(tmp_path.iterdir())


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_files("~/mine").root == str(tmp_path / "mine")


def test_what_killed_processes_left_half_written_is_removed_once_it_is_old(tmp_path):
    store = Store.create(tmp_path / "store")
    root = Path(store.root)
    hexes = "0123456789abcdef" * 2
    partial = [root / f".driver.json.{hexes}", root / f".probe-{hexes}", root / "rows" / f".ab.parquet.{hexes}",
               root / "artefacts" / f".ab.safetensors.{hexes}", root / f"..probe-{hexes}.{hexes}",
               root / "checkpoints" / f".ab.safetensors.{hexes}"]
    kept = [root / ".lock", root / ".DS_Store", root / "rows" / f"{hexes}.parquet", root / ".git" / f".x.{hexes}",
            root / "rows" / ".hidden.parquet", root / "mine" / f".x.{hexes}"]
    old = time.time() - UNTOUCHED - 60
    for path in (*partial, *kept):
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (old, old))
    (root / "rows" / f".folder.{hexes}").mkdir()
    young = root / "rows" / f".cd.parquet.{hexes}"
    young.touch()
    assert store.tidy() == len(partial) and store.tidy() == 0
    assert not any(path.exists() for path in partial)
    assert all(path.exists() for path in (*kept, young))
