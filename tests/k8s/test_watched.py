"""Every query of every panel finds something of a real campaign, as a real Prometheus scrapes it."""

import time

import pytest

pytest.importorskip("promql_parser")

from support.campaigns import tiny_folder, write_campaign
from support.expressions import filled, targets
from support.processes import LIMIT, free_port, wait_for
from support.prometheus import needs_prometheus, prometheus, said, started

__all__ = ["prometheus", "tiny_folder", "write_campaign"]

# Of queries that find nothing of this campaign: why.
EMPTY = {
    ("efficiency", "Peak memory of training, beside the paper's", "B"): "no method here that the paper trains",
}
RAYS = "ray_node_"  # scraped from Ray, not from the campaign


@needs_prometheus
def test_every_panel_has_data_of_a_real_campaign(prometheus, write_campaign, tmp_path):
    file, store = tmp_path / "targets" / "small.json", tmp_path / "store"
    campaign = write_campaign(
        chunk=2, workers={"count": 1}, datasets=[{"name": "testbed-cloze", "limit": 60}],
        editors=["identity", {"name": "ft", "config": {"layers": [1], "steps": 60, "stop_loss": 0}},
                 {"name": "t-patcher", "config": {"memory_queries": 200, "steps": 20}}])
    wanted = {which: filled(expression) for which, expression in targets().items()
              if RAYS not in expression and which not in EMPTY}
    missing = set(wanted)
    with started(campaign, store, free_port(), file) as run:
        wait_for(file.exists)
        began = time.monotonic()
        while missing and run.poll() is None and time.monotonic() - began < LIMIT:
            time.sleep(1)
            missing = {which for which in missing if not prometheus(wanted[which])}
    assert missing == set(), said(store).read_text()
