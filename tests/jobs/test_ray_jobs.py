"""Campaigns as jobs of a Ray cluster: a real head, started as users start one, with and without a token."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from support.processes import LIMIT, free_port, wait_for

from cluster.store.store import Store

HOME = Path(__file__).parents[2]
TOKEN = "of-this-test"
ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [a-z-]+( [a-z]+=(\"([^\"\\]|\\.)*\"|[^ \"]+))*"
                  r"|\d+/\d+ tasks, .*edits")


class Head(NamedTuple):
    """A head of one node, which listens to jobs at `port`; `environment` is what a user of it has to set."""

    process: subprocess.Popen
    port: int
    environment: dict[str, str]

    def ask(self, method, path, content=None, token=None):
        """A status and an answer of the REST interface."""
        token = token or self.environment.get("RAY_AUTH_TOKEN")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, f"/api/{path}", content and json.dumps(content), {
            "Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})})
        answer = connection.getresponse()
        text = answer.read().decode()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, text

    def submit(self, name, *arguments):
        """Begins `editfleet run` as a job of this name."""
        command = [sys.executable, "-m", "jobs.cli", "run", *map(str, arguments)]
        status, answer = self.ask("POST", "jobs/", {
            "entrypoint": " ".join(command), "submission_id": name,
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}}})
        assert status == 200, answer

    def state(self, name):
        return self.ask("GET", f"jobs/{name}")[1]["status"]

    def end(self, name):
        """How a job ended."""
        wait_for(lambda: self.state(name) in ENDED)
        return self.state(name)

    def log(self, name):
        return self.ask("GET", f"jobs/{name}/logs")[1]["logs"]


@contextlib.contextmanager
def started(port, **auth):
    """A head whose jobs listen at a port; its processes are a group of their own, which ends with the block."""
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")},
                   "PYTHONPATH": os.pathsep.join([str(HOME), *sys.path]), "RAY_ADDRESS": "", **auth}
    folder = tempfile.mkdtemp(prefix="h", dir="/tmp")  # sockets have short paths
    ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
    command = [*ray, "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", f"--temp-dir={folder}",
               f"--port={free_port()}", f"--dashboard-port={port}", f"--ray-client-server-port={free_port()}",
               "--object-store-memory=100000000", "--include-dashboard=true", "--dashboard-agent-listen-port=0"]
    with open(os.path.join(folder, "out"), "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=out, stderr=out)
    head = Head(process, port, environment)
    try:
        wait_for(lambda: process.poll() is not None or answers(head))
        assert process.poll() is None, Path(folder, "out").read_text()
        yield head
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def answers(head):
    with contextlib.suppress(OSError, http.client.HTTPException):
        return head.ask("GET", "jobs/")[0] == 200
    return False


@pytest.fixture(scope="module")
def head():
    with started(free_port(), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as found:
        yield found


@pytest.fixture
def slow(write_campaign):
    """A campaign of four tasks that take seconds."""
    return write_slow(write_campaign, 4)


def write_slow(write_campaign, tasks):
    return write_campaign(chunk=1, datasets=[{"name": "testbed-cloze", "limit": tasks}], workers={"count": 1},
                          editors=[{"name": "ft", "config": {"layers": [1], "steps": 200, "stop_loss": 0}}])


def rows(store):
    found = Store.open(store)
    return sorted(map(repr, found.rows(found.campaigns()[0].tasks).to_pylist()))


def results(store):
    return list((store / "rows").glob("[!.]*"))


def test_a_campaign_runs_as_a_job_and_its_log_is_whole_lines(head, write_campaign, invoke, tmp_path):
    there = tmp_path / "store"
    submitted = subprocess.run(
        [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "job", "submit",
         f"--address=http://127.0.0.1:{head.port}", "--submission-id=whole", "--", sys.executable, "-m", "jobs.cli",
         "run", str(write_campaign()), "--out", str(there)],
        env=head.environment, capture_output=True, text=True, timeout=LIMIT)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert head.state("whole") == "SUCCEEDED" and "9 of 9 tasks done" in head.log("whole")
    of_events = head.log("whole").partition("campaign-start")[2].partition("campaign-end")[0].splitlines()[1:-1]
    odd = [line for line in of_events if not LINE.fullmatch(line)]
    assert len(of_events) > 20 and not odd, odd
    assert invoke("run", write_campaign(), "--out", tmp_path / "here").exit_code == 0
    assert rows(there) == rows(tmp_path / "here")


def test_nobody_gets_in_without_the_token(head):
    assert head.ask("GET", "jobs/", token="another")[0] in (401, 403)
    assert head._replace(environment={}).ask("GET", "jobs/")[0] in (401, 403)


def test_wrong_input_fails_the_job_and_its_log_says_why(head, write_campaign, tmp_path):
    head.submit("wrong", write_campaign(editors=["romee"]), "--out", tmp_path / "store")
    assert head.end("wrong") == "FAILED"
    assert "unknown editor 'romee'" in head.log("wrong") and "Traceback" not in head.log("wrong")
    assert "exit code 2" in head.ask("GET", "jobs/wrong")[1]["message"]


def test_a_job_that_is_stopped_goes_on_when_it_is_submitted_again(head, slow, invoke, tmp_path):
    store = tmp_path / "store"
    head.submit("first", slow, "--out", store)
    wait_for(lambda: results(store) or head.state("first") in ENDED)
    assert head.ask("POST", "jobs/first/stop")[0] == 200
    assert head.end("first") == "STOPPED" and 0 < len(results(store)) < 4
    [log] = (store / "logs").iterdir()  # nothing of it was lost
    assert "campaign-start" in log.read_text() and not (store / "driver.json").exists()
    head.submit("second", slow, "--out", store)
    assert head.end("second") == "SUCCEEDED", head.log("second")
    assert invoke("run", slow, "--out", tmp_path / "here").exit_code == 0
    assert rows(store) == rows(tmp_path / "here")


@pytest.mark.chaos
def test_two_campaigns_at_once_need_two_stores(head, write_campaign, tmp_path):
    slow = write_slow(write_campaign, 24)  # longer than a driver waits for another to end
    for name in ("one", "two"):
        head.submit(name, slow, "--out", tmp_path / name)
    wait_for(lambda: results(tmp_path / "one"))
    head.submit("intruder", slow, "--out", tmp_path / "one")
    assert head.end("intruder") == "FAILED" and "is being run into store" in head.log("intruder")
    assert head.end("one") == head.end("two") == "SUCCEEDED"
    assert rows(tmp_path / "one") == rows(tmp_path / "two")


@pytest.mark.chaos
def test_a_head_that_is_lost_costs_what_was_in_hand(slow, invoke, tmp_path):
    """As the operator does it: the same job, by the same id, on a new head."""
    store, port = tmp_path / "store", free_port()
    with started(port) as head:
        head.submit("again", slow, "--out", store)
        wait_for(lambda: results(store))
        assert "answers without a token" in head.log("again")
    kept = {path: path.stat().st_mtime_ns for path in results(store)}
    with started(port) as head:
        head.submit("again", slow, "--out", store)
        assert head.end("again") == "SUCCEEDED", head.log("again")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert invoke("run", slow, "--out", tmp_path / "here").exit_code == 0
    assert rows(store) == rows(tmp_path / "here")


def test_what_is_sent_is_small_and_hides_nothing_that_is_installed(tmp_path):
    folder, package = tmp_path / "clone", tmp_path / "sent.zip"
    shutil.copytree(HOME, folder, ignore=shutil.ignore_patterns(".git", ".venv", "results", ".*_cache"))
    (folder / "study.yaml").write_text(yaml.safe_dump({"name": "study"}))
    create_package(str(folder), package, include_gitignore=True)
    sent = zipfile.ZipFile(package).namelist()
    assert "study.yaml" in sent and package.stat().st_size < 20 << 20
    assert not {name.split("/")[0] for name in sent} & {"cluster", "editors", "evaluators", "jobs", "k8s", "tests"}
