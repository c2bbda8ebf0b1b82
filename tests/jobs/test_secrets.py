"""Passwords, signatures and keys, planted wherever people have them, come out nowhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from types import SimpleNamespace

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer
from support.campaigns import LocalPool
from support.chat_server import ECHO, local_server, no_pauses, truth  # noqa: F401 - fixtures
from support.processes import LIMIT
from support.secret_places import MARKERS, PASSWORD, QUERY, TOKEN, USER, leaks, local_secret_server  # noqa: F401
from typer.testing import CliRunner

from cluster.campaign.spec import WorkerSpec
from cluster.scheduler.events import TaskDone, TaskFailed
from cluster.workers.runner import TaskRunner
from jobs.cli import app

KEY = "sk-K3yMarker/+'x"
KEYS = ["K3yMarker"]


def record(number):
    subject = f"Subject {number}"
    return {"id": str(number), "prompt": f"{subject} lives in", "subject": subject, "target_new": "Rome",
            "target_true": "Paris", "paraphrases": [f"The home of {subject} is"],
            "neighbourhood": [{"prompt": "Nobody lives in", "target": "Paris"}]}


@pytest.fixture
def sources(secret_server):
    """What a campaign reads, all of it behind a password and a signature."""
    for name, numbers in {"cases.json": range(2), "lessons.json": range(5, 8)}.items():
        secret_server.files[name] = json.dumps([record(number) for number in numbers]).encode()
    secret_server.files["corpus.txt"] = b"Subject 1 lives in Paris and not in Rome.\n" * 20
    return {"datasets": [{"name": "mine", "path": secret_server.url("cases.json"),
                          "train": secret_server.url("lessons.json"), "format": "edits"}],
            "statistics": {"corpus": secret_server.url("corpus.txt"), "tokens": 5000},
            "measures": {"perplexity": {"corpus": secret_server.url("corpus.txt"), "texts": 2}}}


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """Runs a command in an empty folder; `.said` is all that commands said."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        run.said.append(result.output)
        return result

    run.said = []
    return run


class Running(LocalPool):
    """Workers in this process that run tasks as Ray's do."""

    def wait(self, seconds):
        if self.queue and isinstance(self.queue[0], tuple):
            worker, task, parts = self.queue.pop(0)
            answer = TaskRunner(self.store.root, WorkerSpec()).run(task, parts)
            return [TaskDone(worker, task.id) if answer.outcome == "done" else
                    TaskFailed(worker, task.id, answer.detail)]
        return super().wait(seconds)


@pytest.fixture
def pools(monkeypatch):
    """What happens before workers start."""
    before = []

    @contextmanager
    def connect(store, spec, address):
        for act in before:
            act()
        yield Running(store)

    monkeypatch.setattr("cluster.workers.pool.ray_pool", connect)
    return before


def test_a_campaign_that_is_done_and_one_whose_tasks_fail_tell_no_secret(
        sources, secret_server, write_campaign, drilled, pools, invoke, tmp_path):
    campaign = write_campaign(**sources, editors=["identity", "drilled", {
        "name": "rome", "config": {"layer": 1, "steps": 2, "contexts": [[2, 2]]}}])
    campaign.rename(tmp_path / "campaign.yaml")
    assert invoke("plan", tmp_path / "campaign.yaml").exit_code == 0
    done = invoke("run", tmp_path / "campaign.yaml", "--out", "store", "--log", "run.log")
    assert done.exit_code == 0 and "http://***@127.0.0.1" in done.stdout, done.output  # the corpus has few tokens
    sources_kept = {json.loads(path.read_text()).get("data", {}).get("source")
                    for path in (tmp_path / "here/store/provenance").iterdir()}
    assert f"http://***@127.0.0.1:{secret_server.server_address[1]}/cases.json?***" in sources_kept

    pools.append(lambda: secret_server.files.pop("corpus.txt", None))
    failed = invoke("run", tmp_path / "campaign.yaml", "--out", "failed", "--log", "failed.log")
    assert failed.exit_code == 1 and "cannot be now, on this node" in failed.stdout, failed.output
    assert any("Traceback" in path.read_text() for path in (tmp_path / "here/failed/failures").iterdir())
    for store in ("store", "failed"):
        assert invoke("status", store).exit_code == 0
        for format in ("table", "json", "markdown"):
            assert invoke("report", store, "--format", format, "--all").exit_code == 0
    assert invoke("plan", tmp_path / "campaign.yaml", "--out", "store").exit_code == 2  # the corpus is gone
    assert leaks(MARKERS, invoke.said, tmp_path / "here") == []


def test_a_run_on_ray_into_s3_tells_no_secret_in_the_store_the_cache_or_rays_files(
        sources, write_campaign, invoke, tmp_path, monkeypatch):
    server, ray = ThreadedMotoServer(port=0), tempfile.mkdtemp(dir="/tmp")
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    for name, value in {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "key", "AWS_SESSION_TOKEN": f"{TOKEN}/s",
                        "AWS_SECRET_ACCESS_KEY": f"{PASSWORD}/aws", "AWS_DEFAULT_REGION": "us-east-1",
                        "XDG_CACHE_HOME": str(tmp_path / "cache"), "RAY_TMPDIR": ray}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3", endpoint_url=address)
    client.create_bucket(Bucket="bucket")
    campaign = write_campaign(**sources, editors=["identity", {"name": "ft", "config": {"layers": [1], "steps": 1}}])
    try:
        run = subprocess.run(
            [sys.executable, "-m", "jobs.cli", "run", str(campaign), "--out", "s3://bucket/made", "--workers", "1"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, timeout=LIMIT)
        assert run.returncode == 0, run.stderr
        assert invoke("status", "s3://bucket/made").exit_code == 0
        assert invoke("status", "s3://nowhere/made").exit_code == 2
        names = [entry["Key"] for entry in client.list_objects_v2(Bucket="bucket")["Contents"]]
        objects = [client.get_object(Bucket="bucket", Key=name)["Body"].read().decode(errors="replace")
                   for name in names]
        assert any("provenance/" in name for name in names)
        texts = [*names, *objects, *invoke.said, run.stdout + run.stderr]
        assert leaks(MARKERS, texts, ray, tmp_path / "cache") == []
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()
        shutil.rmtree(ray)


def test_wrong_places_are_told_without_their_secrets(secret_server, write_campaign, invoke, tmp_path):
    where, other = secret_server.url("absent.json"), f"s3://{USER}:{PASSWORD}@bucket/x?{QUERY}"
    secret_server.files |= {"bad.json": b"{", "text.txt": b"a\0b", "odd.json": b'[{"a": 1}]', "latin.json": b"[\xe9]",
                            "x.gz": b"x"}
    bad = [secret_server.url(name) for name in secret_server.files]
    unreachable = secret_server.url("x.json", host="127.0.0.1:1")
    for place in (where, *bad, unreachable, other, f"http://{USER}:{PASSWORD}@[/x?{QUERY}",
                  where.replace("Us3r", "User"), f"zip://a.json::{where}", f"nothing://{USER}:{PASSWORD}@host/x?{TOKEN}"):
        assert invoke("audit", place, "--train", place).exit_code == 2
        if "nothing" not in place:
            assert invoke("audit", "testbed-cloze", "--train", place).exit_code == 2
    for changes in ({"datasets": [{"name": "mine", "path": where}]}, {"datasets": [where]}, {"models": [other]},
                    {"datasets": [{"name": where, "path": where}]}, {"name": where}, {"datasets": [{"hub": other}]},
                    {"datasets": [{"name": "mine", "hub": other, "split": "x"}]}, {"data": [where]}, {"chunk": where},
                    {"datasets": [{"name": "mine", "path": where, "hub": other}]}, {where: 1}, {"editors": [where]},
                    {"editors": [{"name": "ft", "label": where}]}, {"editors": [{"name": "ft", "artefact": where}]},
                    {"editors": [{"name": "ft", "config": {"lr": where}}]}, {"statistics": {"corpus": other}},
                    {"editors": [{"name": "mend", "artefact": where}]}, {"protocols": [where]},
                    {"measures": {"perplexity": {"corpus": where}}}, {"scales": where},
                    {"datasets": [{"name": "mine", "path": "none.json"}], "published": {"none.json": where}},
                    {"datasets": [{"name": "mine", "path": "none.json"}], "data": where}):
        result = invoke("plan", write_campaign(**changes))
        assert result.exit_code == 2, (changes, result.output)
    small, reading = write_campaign(), tmp_path / "reading.yaml"
    reading.write_text(small.read_text().replace("name: testbed-cloze", "name: mine\n  path: none.json"))
    far = f"https://{'x' * 180}:{PASSWORD}@host/{'x' * 1000}?{QUERY}"  # which messages cut
    for changes in ({far: 1}, {"editors": [far]}, {"chunk": far}, {"datasets": [{"name": "mine", "path": far}]}):
        assert invoke("plan", write_campaign(**changes)).exit_code == 2
    write_campaign()
    for command in (["run", reading, "--out", "store", "--data"], ["run", small, "--out"], ["plan", small, "--out"],
                    ["run", small, "--out", "store", "--address"], ["plan"], ["status"], ["report"],
                    ["audit", "testbed-cloze", "--model"]):
        assert invoke(*command, other).exit_code != 0, command
    small.unlink()  # where they stood
    assert leaks([*MARKERS, "UserMarker"], invoke.said, tmp_path) == []


@pytest.fixture
def build(invoke, server, sleeps, secret_server, monkeypatch):
    """Runs `portability build` on edits behind a password; the environment's key has a stray line end."""
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    edits = [{"src": f"Where does {subject} live?", "subject": subject, "alt": "Rome"} for subject in ("Ann", "Bo")]
    secret_server.files["edits.json"] = json.dumps(edits).encode()
    return lambda *more, source=None, endpoint=None: invoke(
        "portability", "build", source or secret_server.url("edits.json"), "--out", "made", "--endpoint",
        endpoint or server.url, "--model", "gpt", "--subject-models", "testbed-gptj", "--requests-per-minute", 1e6,
        "--limit", 2, "--retries", 1, *more)


def test_no_answer_of_an_endpoint_tells_the_key(build, server, invoke, tmp_path):
    for status, code in ((400, 1), (200, 0)):
        server.say = lambda subject, altered, status=status: ECHO[status]
        assert build().exit_code == code
    assert (tmp_path / "here/made/journal.jsonl").read_text().count("you sent") == 4
    for status in (401, 404):
        server.say = lambda subject, altered, status=status: ECHO[status]
        refused = build(source="testbed-cloze")
        assert refused.exit_code == 2 and "you sent" in refused.stderr, refused.output
    server.say = lambda subject, altered: truth(subject, altered).replace("New Question: ", f"New Question: {KEY} ")
    assert build(source="testbed-cloze").exit_code == 0
    assert invoke("portability", "export", "made").exit_code == 0
    assert invoke("portability", "import", "made", "--unreviewed", "keep").exit_code == 0
    assert "New Question: ***" in (tmp_path / "here/made/journal.jsonl").read_text()
    assert server.keys == {f"Bearer {KEY}"}
    assert leaks(KEYS + MARKERS, invoke.said, tmp_path) == []


@pytest.mark.parametrize("key", ["sk-K3yMarker two", "sk-K3yMarker\nx", "sk-K3yMarker\x01", "sk-K3yMarkér", "  \n"])
def test_keys_that_are_none_are_refused_and_not_shown(build, server, invoke, monkeypatch, tmp_path, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    refused = build(source="testbed-cloze")
    assert refused.exit_code == 2 and "OPENAI_API_KEY" in refused.stderr and not server.requests
    assert leaks(KEYS, invoke.said, tmp_path) == []


@pytest.mark.parametrize("endpoint", [f"https://{USER}:{PASSWORD}@127.0.0.1:1/v1", f"http://127.0.0.1:1/v1?{QUERY}"])
def test_endpoints_that_hold_secrets_are_refused_and_shown_without_them(build, invoke, tmp_path, endpoint):
    refused = build(source="testbed-cloze", endpoint=endpoint)
    assert refused.exit_code == 2 and "is not the address of an API" in refused.stderr
    assert leaks(MARKERS, invoke.said, tmp_path) == []


def test_the_harness_and_the_hub_tell_no_token(invoke, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", KEY)
    said = f"401 for https://{USER}:{PASSWORD}@host/x?{QUERY}: Illegal header value {f'Bearer {KEY}'.encode()!r}"

    def fail(*arguments, **settings):
        raise OSError(said)

    monkeypatch.setattr("evaluators.harness.open_tasks", lambda folder: SimpleNamespace(all_tasks=["piqa"]))
    monkeypatch.setattr("evaluators.harness.wrap", lambda model, size: None)
    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace(simple_evaluate=fail))
    refused = invoke("harness", "testbed-gptj", "--tasks", "piqa", "--out", "out.json")
    assert refused.exit_code == 2 and "401 for https://***@host/x?***" in refused.stderr, refused.output

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setattr("datasets.load_dataset", fail)
    assert invoke("harness", "some/model", "--tasks", "piqa", "--out", "out.json").exit_code == 2
    (tmp_path / "hub.yaml").write_text("{name: a, models: [testbed-gptj], editors: [identity], "
                                       "datasets: [{name: d, hub: some/data, split: test}]}")
    assert "cannot read split 'test'" in invoke("plan", tmp_path / "hub.yaml").stderr
    assert leaks(KEYS + MARKERS, invoke.said, tmp_path) == []
