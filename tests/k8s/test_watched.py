"""Every query of every panel finds something of a real campaign, as a real Prometheus scrapes it."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest
import yaml

pytest.importorskip("promql_parser")

from support.campaigns import tiny_folder, write_campaign
from support.expressions import filled, targets
from support.processes import LIMIT, free_port, wait_for

__all__ = ["tiny_folder", "write_campaign"]

# Of queries that find nothing of this campaign: why.
EMPTY = {
    ("efficiency", "Peak memory of training, beside the paper's", "B"): "no method here that the paper trains",
}
RAYS = "ray_node_"  # scraped from Ray, not from the campaign


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian: prometheus)")
def test_every_panel_has_data_of_a_real_campaign(write_campaign, tmp_path):
    targets_file, port = tmp_path / "targets.json", free_port()
    campaign = write_campaign(
        chunk=2, workers={"count": 1}, datasets=[{"name": "testbed-cloze", "limit": 60}],
        editors=["identity", {"name": "ft", "config": {"layers": [1], "steps": 60, "stop_loss": 0}},
                 {"name": "t-patcher", "config": {"memory_queries": 200, "steps": 20}}])
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "editfleet", "file_sd_configs": [
            {"files": [str(targets_file)], "refresh_interval": "1s"}]}]}))
    scraper = subprocess.Popen(["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}",
                                f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = subprocess.Popen([sys.executable, "-m", "jobs.cli", "run", str(campaign), "--out", str(tmp_path / "store"),
                            "--metrics-port", str(free_port()), "--metrics-sd", str(targets_file)],
                           env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE, text=True)

    def found(expression):
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except OSError:
            return []  # it is not up yet

    wanted = {which: filled(expression) for which, expression in targets().items()
              if RAYS not in expression and which not in EMPTY}
    missing = set(wanted)
    try:
        wait_for(targets_file.exists)
        began = time.monotonic()
        while missing and run.poll() is None and time.monotonic() - began < LIMIT:
            time.sleep(1)
            missing = {which for which in missing if not found(wanted[which])}
    finally:
        for process in (run, scraper):
            process.terminate()
        said = run.communicate(timeout=LIMIT)[1]
        scraper.wait(LIMIT)
    assert missing == set(), said
