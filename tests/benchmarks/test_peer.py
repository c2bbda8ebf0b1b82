"""Methods change the weights that EasyEdit changes, by as much: with a checkout of it in `EASYEDIT`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks import peer

CHECKOUT = os.environ.get("EASYEDIT")


@pytest.mark.skipif(not CHECKOUT, reason="no checkout of EasyEdit in EASYEDIT")
@pytest.mark.parametrize("method", peer.METHODS)
def test_edits_are_those_of_easyedit(method: str, tmp_path: Path) -> None:
    peer.main(Path(str(CHECKOUT)), tmp_path / "peer.json", methods=method, cases=2, rounds=1)
    found = json.loads((tmp_path / "peer.json").read_text())["methods"][method]
    assert found["difference"]["most"] < 1e-3
    assert found["scores"]["ours"] == found["scores"]["theirs"]
