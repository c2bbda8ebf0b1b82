"""The parts of `make watch-demo`: a Prometheus that would see the campaign, and the end of what was started."""

import subprocess
import sys
from contextlib import ExitStack

import yaml
from support.promtool import needs_promtool, promtool

from k8s import demo


@needs_promtool
def test_prometheus_takes_the_configuration(tmp_path):
    config = demo.write_configuration(tmp_path)
    code, said = promtool("check", "config", config)
    assert code == 0 and "1 rule files found" in said, said


def test_prometheus_looks_where_the_campaign_says_it_is(tmp_path):
    [job] = yaml.safe_load(demo.write_configuration(tmp_path).read_text())["scrape_configs"]
    command = demo.campaign_command(tmp_path)
    assert job["job_name"] == "editfleet"  # which the alert ExporterDown asks for
    assert job["file_sd_configs"][0]["files"] == [command[command.index("--metrics-sd") + 1]]
    assert all("127.0.0.1:" in each for each in demo.prometheus_command(tmp_path / "c", 1) if "listen" in each)


def test_what_was_started_ends():
    with ExitStack() as stack:
        process = demo._started(stack, [sys.executable, "-c", "import time; time.sleep(60)"])
        assert process.poll() is None
    assert process.poll() is not None


def test_without_prometheus_one_is_told_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(demo.shutil, "which", lambda name: None)
    monkeypatch.setattr(subprocess, "Popen", None)  # nothing is started
    assert demo.main() == 2 and capsys.readouterr().err.startswith("Error: there is no 'prometheus'")
