"""The commands on a store in S3, for real: a server of its own, Ray's workers, and a driver that is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from support.campaigns import run_here
from support.processes import LIMIT, free_port, marked, wait_for
from typer.testing import CliRunner

from cluster.campaign.file import load_campaign
from cluster.plan.planner import plan
from cluster.store.store import Store
from jobs.cli import app

MARK = "EDITFLEET_TEST_S3"
EDITORS = ["identity", {"name": "ft", "config": {"layers": [1], "steps": 100, "stop_loss": 0}}]


@pytest.fixture
def server():
    """The address of an S3 server, which is a process of its own."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture
def environment(server, tmp_path, monkeypatch):
    """What the README says to set, and a mark on all processes that are started with it."""
    found = {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
             "AWS_DEFAULT_REGION": "us-east-1", "XDG_CACHE_HOME": str(tmp_path / "cache"), MARK: uuid.uuid4().hex}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.fixture
def bucket(environment, server):
    """A new bucket; `times()` tells when each object in it was written."""
    client = boto3.client("s3", endpoint_url=server)

    class Bucket:
        def make(self):
            with contextlib.suppress(EndpointConnectionError):
                return client.create_bucket(Bucket="bucket")

        def times(self):
            found = client.list_objects_v2(Bucket="bucket").get("Contents", [])
            return {entry["Key"]: entry["LastModified"] for entry in found}

    wait_for(Bucket().make)
    return Bucket()


def test_a_campaign_whose_driver_is_killed_goes_on_in_s3_and_leaves_the_rows_of_a_local_store(
        bucket, environment, write_campaign, tmp_path, local_pool):
    campaign, url = write_campaign(chunk=1, editors=EDITORS), "s3://bucket/studies/small"

    def command(*arguments):
        return [sys.executable, "-m", "jobs.cli", *map(str, arguments)]

    def ask(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    def rows():
        """When each result with rows was written that is there as a whole."""
        times = bucket.times()
        return {name: written for name, written in times.items()
                if "/rows/" in name and name.replace("/rows/", "/provenance/").replace(".parquet", ".json") in times}

    driver = subprocess.Popen(command("run", campaign, "--out", url, "--workers", 2), env=environment,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    planned = plan(load_campaign(campaign))  # meanwhile
    local = Store.create(tmp_path / "store")
    run_here(planned, local, local_pool)
    wait_for(lambda: driver.poll() is not None or rows())
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    wait_for(lambda: not marked(MARK, environment[MARK]) - {os.getpid()})
    kept = rows()
    assert 0 < len(kept) < 8

    assert "which is dead; running it again goes on" in ask("status", url)
    again = subprocess.run(command("run", campaign, "--out", url, "--workers", 1), env=environment,
                           capture_output=True, text=True, timeout=LIMIT)
    assert again.returncode == 0 and "12 of 12 tasks done" in again.stdout, again.stdout + again.stderr
    assert "12 of 12 tasks done" in ask("status", url)
    assert kept.items() < rows().items() and not [name for name in bucket.times() if "driver.json" in name]
    assert "All tasks are done" in ask("plan", campaign, "--out", url)
    report, expected = (ask("report", place, "--format", "json") for place in (url, tmp_path / "store"))
    assert report == expected and {json.loads(line)["editor"] for line in report.splitlines()} == {"identity", "ft"}
    store = Store.open(url)
    assert store.rows(store.campaigns()[0].tasks).equals(local.rows(local.campaigns()[0].tasks))
