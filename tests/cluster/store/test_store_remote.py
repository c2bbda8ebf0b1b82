"""Stores under URLs: S3 for real, against a server of its own, and fsspec's memory."""

from __future__ import annotations

import socket
import sys
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import fsspec
import pyarrow.parquet as pq
import pytest
import s3fs
from fsspec.registry import _registry
from moto.server import ThreadedMotoServer
from support.campaigns import ROME
from support.processes import serving
from support.stores import PATCH, ROWS, campaign, read_patch, rows, task, write_patch

from cluster.plan.tasks import BaselineTask
from cluster.store.errors import Damaged, LeaseLost, StoreError
from cluster.store.store import Failure, ResultKey, Store
from cluster.workers.executor import TaskExecutor
from editors.core.errors import InputError

BUCKET = "bucket"


@pytest.fixture(scope="module")
def server():
    """An S3 server; yields its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(server, monkeypatch, tmp_path):
    """The URL of a new place in S3."""
    for name, value in {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
                        "AWS_DEFAULT_REGION": "us-east-1", "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    boto3.client("s3", endpoint_url=server).create_bucket(Bucket=BUCKET)
    yield f"s3://{BUCKET}/{uuid.uuid4().hex}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["s3", "memory"])
def url(request, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("cluster.store.files.PRIVATE", set())  # here one process does all
    return request.getfixturevalue("s3") if request.param == "s3" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def store(url):
    return Store.create(url)


def raw(store):
    """The driver's own view of a store: its file system and the path."""
    return fsspec.core.url_to_fs(store.root)


def objects(store):
    fs, path = raw(store)
    fs.invalidate_cache()
    return sorted(name.rpartition(path + "/")[2] for name in fs.find(path))


def overwrite(store, name, change):
    fs, path = raw(store)
    fs.pipe_file(f"{path}/{name}", change(fs.cat_file(f"{path}/{name}")))


def test_results_come_back(store, url):
    assert store.root == url and not Store.open(url).has(ROWS)
    store.write_table(ROWS, rows(0.1, 0.2), {"failed": []})
    write_patch(store)
    again = Store.open(store.root)
    assert again.has(ROWS) and again.has(PATCH)
    assert again.read_table(ROWS)["value"].to_pylist() == [0.1, 0.2] and again.provenance(ROWS)["failed"] == []
    info, [(_, tensors)] = read_patch(again.local(PATCH))
    assert info == {"made": "here"} and tensors["weight"] == [[0.5] * 3] * 64
    assert objects(store) == ["artefacts/c0.safetensors", "provenance/a1.json", "provenance/c0.json", "rows/a1.parquet",
                              "store.json"]
    assert Store.create(url).done([ROWS, PATCH, ResultKey("rows", "a2")]) == {"a1", "c0"}


def test_an_interrupted_write_leaves_nothing(store):
    with pytest.raises(KeyboardInterrupt), store.new_artefact(PATCH, {}) as path:
        path.write_bytes(b"half")
        raise KeyboardInterrupt
    assert objects(store) == ["store.json"]


def test_other_programs_read_what_is_stored(store):
    store.write_table(ROWS, rows(0.1), {})
    fs, path = raw(store)
    assert pq.read_table(f"{path}/rows/a1.parquet", filesystem=fs)["value"].to_pylist() == [0.1]


def test_campaigns_failures_and_standing(store):
    record = campaign("study", task("a1"), task("a2"), task("a3"))
    store.write_campaign(record)
    store.write_table(ROWS, rows(0.1), {"failed": []})
    store.write_failure(Failure(task="a2", title="t", reason="ValueError: bad"))
    assert store.campaigns() == [record]
    standing = store.standing(record)
    assert standing.done == {"a1"} and [failure.task for failure in standing.failures] == ["a2"]
    store.clear_failures(["a1", "a2"])
    store.clear_failure("a2")
    assert store.standing(record).failures == ()


@pytest.mark.parametrize("harm", [lambda data: b"", lambda data: data[:-1], lambda data: data[:-9] + b"x" + data[-8:]],
                         ids=["emptied", "cut", "changed"])
def test_damage_is_found_by_readers_and_set_aside(store, harm):
    store.write_table(ROWS, rows(0.1), {"failed": []})
    write_patch(store)
    overwrite(store, "rows/a1.parquet", harm)
    overwrite(store, "artefacts/c0.safetensors", harm)
    with pytest.raises(Damaged) as caught:
        Store.open(store.root).local(PATCH)
    store.quarantine(caught.value.key)
    assert store.rows([task("a1")]).num_rows == 0
    assert store.done([ROWS, PATCH]) == set()
    with pytest.raises(Damaged, match="no such file"):
        store.read_table(ROWS)
    with pytest.raises(Damaged, match="no such file"):
        Store.open(store.root).local(ResultKey("artefacts", "never"))
    assert [name.partition("-")[0] for name in objects(store)] == [
        *["damaged/artefacts"] * 2, *["damaged/rows"] * 2, "store.json"]
    store.write_table(ROWS, rows(0.1), {"failed": []})
    write_patch(store)
    assert store.done([ROWS, PATCH]) == {"a1", "c0"} and read_patch(store.local(PATCH))
    store.quarantine(PATCH)  # late news of the damage
    assert store.done([PATCH]) == {"c0"}


def test_an_empty_file_is_not_done(store):
    store.write_table(ROWS, rows(0.1), {"failed": []})
    overwrite(store, "rows/a1.parquet", lambda data: b"")
    assert store.done([ROWS]) == set()
    assert objects(store)[0].startswith("damaged/rows-a1-")


def test_a_damaged_local_copy_is_fetched_again(store):
    write_patch(store)
    copy = store.local(PATCH)
    inode = copy.stat().st_ino
    assert store.local(PATCH).stat().st_ino == inode  # fetched once
    before = read_patch(copy)
    copy.write_bytes(copy.read_bytes()[:-1])
    assert read_patch(store.local(PATCH)) == before
    assert store.has(PATCH)


def test_a_copy_that_is_forgotten_makes_room_and_is_fetched_again(store):
    write_patch(store)
    copy = store.local(PATCH)
    store.forget(PATCH)
    store.forget(PATCH)
    assert not copy.exists() and store.has(PATCH) and store.local(PATCH) == copy
    store.remove(PATCH)
    assert not store.has(PATCH)


def test_a_checkpoint_is_uploaded_when_it_has_changed_and_found_the_next_time(store, monkeypatch):
    key = ResultKey("artefacts", "t")
    other = Store.open(store.root)  # on another machine, which goes on
    with pytest.raises(RuntimeError), store.checkpoint(key) as (path, changed):
        assert not path.exists()
        path.write_bytes(b"a quarter")
        changed()
        with other.checkpoint(key) as (copy, _):
            assert copy != path and copy.read_bytes() == b"a quarter"
        assert not copy.exists()
        path.write_bytes(b"half way")
        changed()
        with monkeypatch.context() as away:  # to fail to is no harm: it only saves work
            away.setattr(store._files._fs, "put_file", lambda *_: 1 / 0)
            path.write_bytes(b"three quarters")
            changed()
        raise RuntimeError
    with other.checkpoint(key) as (path, changed):
        assert path.read_bytes() == b"half way"
        path.unlink()
        changed()
    assert objects(store) == ["store.json"]


def test_a_deleted_store_is_not_made_again_by_a_writer(store):
    write_patch(store)
    fs, path = raw(store)
    fs.rm(path, recursive=True)
    for use in (lambda: store.write_table(ROWS, rows(0.1), {}), lambda: write_patch(store), store.probe,
                lambda: store.read_table(ROWS), lambda: store.write_campaign(campaign("c"))):
        with pytest.raises(StoreError, match="was deleted or moved"):
            use()
    assert objects(store) == []
    with pytest.raises(InputError, match="there is no store"):
        Store.open(store.root)


def test_a_place_with_other_things_in_it_is_left_alone(url):
    fs, path = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{path}/thesis.tex", b"x")
    with pytest.raises(InputError, match="not a store"):
        Store.create(url)
    assert Store.occupied(url) and not Store.occupied(url + "0")


def test_one_driver_at_a_time(store, monkeypatch):
    monkeypatch.setattr("cluster.store.lease.SETTLE", 0.2)
    with store.lease("first") as lease:
        assert store.driver().campaign == "first"
        with store.lease("second", patience=0.3) as other:  # it did not renew
            with pytest.raises(LeaseLost, match="campaign 'second'"):
                lease.renew({})
            other.renew({"done": 3})
            assert store.driver().state == {"done": 3}
    assert store.driver() is None
    store.probe()


def test_a_campaigns_task_runs_into_s3(s3, make_plan):
    store = Store.create(s3)
    planned = make_plan(editors=[{"name": "rome", "config": ROME}], datasets=[{"name": "testbed-cloze", "limit": 2}])
    for ran in planned.tasks.values():
        TaskExecutor(Store.open(s3)).run(ran)
    assert store.done(ran.key for ran in planned.tasks.values()) == set(planned.tasks)
    assert store.rows(ran.record() for ran in planned.tasks.values()).num_rows
    [baseline] = [ran for ran in planned.tasks.values() if isinstance(ran, BaselineTask)]
    assert store.provenance(baseline.key)["kind"] == "baseline"


def test_a_bucket_that_is_not_there(s3):
    with pytest.raises(InputError, match=r"cannot write to store 's3://no-such-bucket/x'.*bucket does not exist; make"):
        Store.create("s3://no-such-bucket/x")


def test_keys_that_are_wrong_or_missing(s3, server, monkeypatch):
    def refuse(after):
        request = Request(f"{server}/moto-api/reset-auth", after.encode(), {"Content-Type": "text/plain"})
        urlopen(request).close()

    refuse("0")
    try:
        for use in (Store.create, Store.open, Store.occupied):
            with pytest.raises((InputError, StoreError), match=f"from {socket.gethostname()}, and that the cred"):
                use(s3)
    finally:
        refuse("inf")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match=r"^cannot read store 's3://.*locate credentials; see that"):
        Store.open(s3)


def test_a_server_that_fails_is_asked_three_times(s3, monkeypatch):
    """And not five times, by each of s3fs's own five tries where it does not answer at all."""
    asked = []

    class Failing(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *told):
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Failing)) as failing:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{failing.server_port}")
        with pytest.raises(InputError, match="see that it can be reached"):
            Store.open(s3)
    assert len(asked) == 3 and len(set(asked)) == 1


def test_a_server_that_goes_away(monkeypatch, s3):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    store = Store.create(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store._files._fs.connect(refresh=True)
    for use in (lambda: store.write_table(ROWS, rows(0.1), {}), store.probe, lambda: store.done([ROWS]),
                lambda: store.read_table(ROWS)):
        with pytest.raises(StoreError, match=r"127.0.0.1:9.*see that it can be reached"):
            use()
    with pytest.raises(InputError, match="see that it can be reached"):
        Store.open(s3)


@pytest.mark.parametrize(("url", "module", "message"), [
    ("s3://b/x", "s3fs", r"pip install 'editfleet\[s3\]'"), ("gs://b/x", "gcsfs", r"pip install 'editfleet\[gcs\]'")])
def test_a_driver_that_is_not_installed_is_named(monkeypatch, url, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(_registry, url.partition(":")[0], raising=False)
    with pytest.raises(InputError, match=message):
        Store.open(url)


def test_a_url_that_nothing_can_open():
    with pytest.raises(InputError, match=r"'nonsense://x' is no place for a store.*s3://BUCKET/FOLDER"):
        Store.create("nonsense://x")


def test_a_machine_whose_disk_is_full_says_so(store, monkeypatch):
    write_patch(store)
    def fill(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._files._fs, "get_file", fill)
    with pytest.raises(StoreError, match=r"on this machine: .*No space left.*XDG_CACHE_HOME"):
        store.local(PATCH)


def test_the_cache_goes_where_it_can_be_written(monkeypatch, tmp_path):
    from cluster.store.files import _cache_folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _cache_folder() == tmp_path / "editfleet"
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert Path(str(tmp_path)) not in _cache_folder().parents
