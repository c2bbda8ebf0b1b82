"""A campaign to watch on one machine: the quickstart, and a Prometheus that sees it. `make watch-demo`.

Both end when this is interrupted, and what they wrote goes with them.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import yaml

from k8s.monitoring.plain import plain

PORT = 9464  # where the campaign shows its metrics; the next free one if that is taken


def configuration(targets: Path, rules: Path) -> str:
    """Prometheus's, for campaigns that write where they are into `targets` (`editfleet run --metrics-sd`)."""
    job = {"job_name": "editfleet", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "5s"}]}
    return yaml.safe_dump({"global": {"scrape_interval": "5s", "evaluation_interval": "15s"},
                           "rule_files": [str(rules)], "scrape_configs": [job]}, sort_keys=False)


def write_configuration(folder: Path) -> Path:
    """Prometheus's files; targets are to be in `targets.json` beside them."""
    rules, config = folder / "editfleet.rules.yaml", folder / "prometheus.yaml"
    rules.write_text(plain(), encoding="utf-8")
    config.write_text(configuration(folder / "targets.json", rules), encoding="utf-8")
    return config


def campaign_command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "jobs.cli", "run", "quickstart", "--out", str(folder / "store"),
            "--metrics-port", str(PORT), "--metrics-sd", str(folder / "targets.json")]


def prometheus_command(config: Path, port: int) -> list[str]:
    return ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={config.parent / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def main() -> int:
    if shutil.which("prometheus") is None:
        print("Error: there is no 'prometheus' here; on Debian and Ubuntu: apt-get install prometheus", file=sys.stderr)
        return 2
    for each in (signal.SIGINT, signal.SIGTERM):  # else what was started would stay
        signal.signal(each, signal.default_int_handler)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="editfleet-demo-")))
        port = free_port()
        print(f"Prometheus: http://127.0.0.1:{port} (alerts: /alerts)\n"
              f"Store:      editfleet watch {folder / 'store'}\n"
              "Dashboards: in Grafana add this Prometheus as a data source, then import k8s/dashboards/*.json\n"
              "Ctrl-C ends all; it stays after the campaign's end, for you to look at.", flush=True)
        running = [_started(stack, prometheus_command(write_configuration(folder), port)),
                   _started(stack, campaign_command(folder))]
        try:
            codes = [process.wait() for process in reversed(running)]
        except KeyboardInterrupt:
            return 130
    return max(codes)


def _started(stack: ExitStack, command: list[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command)
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """A driver gives its store back and ends its Ray when it is asked to end, which takes seconds."""
    process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    sys.exit(main())
