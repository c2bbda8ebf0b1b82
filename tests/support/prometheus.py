"""A real Prometheus, and campaigns in processes of their own for it to scrape."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from contextlib import contextmanager

import pytest
import yaml
from support.processes import LIMIT, free_port

needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None,
                                      reason="needs prometheus and promtool (Debian: prometheus)")


@pytest.fixture
def prometheus(tmp_path):
    """Scrapes whatever files in `targets` name, every second; a function that asks it."""
    (tmp_path / "targets").mkdir()
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "editfleet", "file_sd_configs": [
            {"files": [str(tmp_path / "targets" / "*.json")], "refresh_interval": "1s"}]}]}))
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}",
                                f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address={address}"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(expression):
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://{address}/api/v1/query?{query}", timeout=10) as answer:
                return {tuple(sorted(series["metric"].items())): float(series["value"][1])
                        for series in json.load(answer)["data"]["result"]}
        except OSError:
            return {}  # it is not up yet

    yield ask
    process.terminate()
    process.wait(LIMIT)


@contextmanager
def started(path, store, port, targets):
    """A campaign that shows its metrics; what it says goes into a file beside its store, `said`, as a pipe that nobody
    reads would hold it up."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with said(store).open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "jobs.cli", "run", str(path), "--out", str(store),
                                    "--metrics-port", str(port), "--metrics-sd", str(targets), "--ray-metrics"],
                                   env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(LIMIT)


def said(store):
    return store.with_name(f"{store.name}.said")
