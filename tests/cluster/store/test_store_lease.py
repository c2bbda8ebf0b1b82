"""One driver per store: live ones are respected, dead ones are taken over from."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from support.stores import files

from cluster.store.errors import LeaseLost, StoreError
from cluster.store.lease import DriverRecord, _machine, _start_of
from cluster.store.store import Store
from editors.core.errors import InputError

HOLDER = """
import sys, time
from cluster.store.store import Store

with Store.open(sys.argv[1]).lease("first") as lease:
    print("held", flush=True)
    while True:
        lease.renew({"done": 1})
        time.sleep(0.05)
"""


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


@contextmanager
def another_driver(store):
    """Another process that holds the store."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", HOLDER, store.root], env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout.readline() == "held\n", process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


def record(store):
    return Path(store.root, "driver.json")


def change(store, **fields):
    partial = record(store).with_suffix(".partial")
    partial.write_text(json.dumps({**json.loads(record(store).read_text()), **fields}))
    partial.replace(record(store))  # whole at any moment, as a driver leaves it


def test_the_record_tells_who_runs_what_and_how_far(store):
    assert store.driver() is None
    with store.lease("study") as lease:
        first = store.driver()
        assert (first.campaign, first.pid, first.state, first.counter) == ("study", os.getpid(), {}, 0)
        lease.renew({"done": 5, "workers": [{"id": 1}]})
        lease.renew()
        assert store.driver().state == {"done": 5, "workers": [{"id": 1}]} and store.driver().counter == 2
    assert store.driver() is None
    assert files(store) == [".lock", "store.json"]


def test_a_driver_that_fails_leaves_no_record(store):
    with pytest.raises(ZeroDivisionError), store.lease("study"):
        raise ZeroDivisionError
    assert store.driver() is None


def test_a_live_driver_is_named_and_left_alone(store):
    with another_driver(store) as process:
        message = rf"campaign 'first' is being run into store '{store.root}' by process {process.pid} on .*--out"
        with pytest.raises(InputError, match=message), store.lease("second", patience=20):
            pass
        assert process.poll() is None
        before = store.driver().counter
        time.sleep(1)
        assert store.driver().counter > before


def test_a_killed_driver_is_taken_over_from_at_once(store):
    with another_driver(store) as process:
        os.kill(process.pid, signal.SIGKILL)
        started = time.monotonic()  # it is a zombie now, until `communicate`
        with store.lease("second", patience=300) as lease:
            lease.renew({})
            assert time.monotonic() - started < 30 and store.driver().campaign == "second"


def test_a_number_that_another_process_has_now_is_not_the_driver(store):
    with store.lease("first"):
        change(store, started="1")
        started = time.monotonic()
        with store.lease("second", patience=300):
            assert time.monotonic() - started < 30


def test_a_driver_that_hangs_is_taken_over_from_and_one_goes_on_when_it_wakes(store, monkeypatch):
    """It may be stopped anywhere, also while it renews: then it is the new one that gives way."""
    monkeypatch.setattr("cluster.store.local.LOCK_SECONDS", 0.2)
    monkeypatch.setattr("cluster.store.lease.SETTLE", 0.2)
    with another_driver(store) as process:
        os.kill(process.pid, signal.SIGSTOP)
        started = time.monotonic()
        with store.lease("second", patience=0.5) as lease:
            assert time.monotonic() - started >= 0.5 and store.driver().campaign == "second"
            os.kill(process.pid, signal.SIGCONT)
            deadline = time.monotonic() + 60
            try:
                while process.poll() is None and time.monotonic() < deadline:
                    lease.renew({})
                    time.sleep(0.05)
            except LeaseLost:
                before = store.driver().counter
                time.sleep(1)
                assert process.poll() is None and store.driver().counter > before
            else:
                stderr = process.communicate()[1]
                assert f"process {os.getpid()} on" in stderr and "LeaseLost" in stderr
                lease.renew({})


def test_a_driver_that_is_long_about_something_is_not_taken_over_from(store, monkeypatch):
    """As when it checks a hundred thousand results before its first report."""
    monkeypatch.setattr("cluster.store.lease.RENEWAL", 0.1)
    with store.lease("first") as lease:
        time.sleep(0.5)  # and says nothing
        with pytest.raises(InputError, match="campaign 'first' is being run"), store.lease("second", patience=2.0):
            pass
        assert store.driver().counter >= 5
        lease.renew({"done": 1})
        time.sleep(0.3)
        assert store.driver().state == {"done": 1}
    time.sleep(0.3)
    assert store.driver() is None


def test_a_store_that_fails_for_a_while_does_not_end_the_renewals(store, monkeypatch):
    monkeypatch.setattr("cluster.store.lease.RENEWAL", 0.1)
    with store.lease("first") as lease:
        renew, failures = lease.renew, iter(range(3))

        def fail_at_first(state=None):
            if next(failures, None) is not None:
                raise StoreError("the store cannot be reached")
            renew(state)

        monkeypatch.setattr(lease, "renew", fail_at_first)
        time.sleep(1)
        assert next(failures, None) is None and store.driver().counter > 0


def test_a_driver_that_was_taken_over_from_stops(store):
    with store.lease("first") as lease, store.lease("second", patience=0.2) as other:
        with pytest.raises(LeaseLost, match=f"process {os.getpid()} on .* has taken .* runs campaign 'second'"):
            lease.renew({})
        other.renew({})


def test_a_driver_on_another_machine_is_judged_by_its_renewals_alone(store, monkeypatch):
    with store.lease("first"):
        change(store, machine="another", pid=1 << 30, started="in 2099", counter=7)
        with ThreadPoolExecutor() as threads:
            refused = threading.Event()

            def live():
                for counter in count(8):
                    change(store, counter=counter)
                    if refused.wait(0.05):
                        return

            living = threads.submit(live)
            try:
                with pytest.raises(InputError, match="campaign 'first'"), store.lease("second", patience=20):
                    pass
            finally:
                refused.set()
            living.result()
        monkeypatch.setattr("time.time", lambda: 0.0)  # clocks jump
        with store.lease("second", patience=0.5):
            assert store.driver().campaign == "second"


def test_a_record_that_was_deleted_stops_its_driver(store):
    with store.lease("first") as lease:
        record(store).unlink()
        with pytest.raises(LeaseLost, match=r"no driver\.json any more"):
            lease.renew({})
        with store.lease("second"):
            pass
        with pytest.raises(LeaseLost):  # a driver that came and went
            lease.renew({})


def test_a_record_that_cannot_be_read_does_not_lock_the_store_for_ever(store):
    record(store).write_text("{")
    with store.lease("second"):
        assert store.driver().campaign == "second"


@pytest.mark.parametrize("locks", [None, errno.EOPNOTSUPP, errno.ENOSYS], ids=["locks", "not here", "not at all"])
@pytest.mark.parametrize("left_behind", [True, False])
def test_of_many_that_start_at_once_one_goes_on(store, monkeypatch, locks, left_behind):
    monkeypatch.setattr("cluster.store.lease.SETTLE", 0.5)
    if locks is not None:
        def refuse(*args):
            raise OSError(locks, os.strerror(locks))

        monkeypatch.setattr("fcntl.flock", refuse)
    if left_behind:
        dead = DriverRecord(token="t", campaign="c", host="h", pid=1 << 30, machine=_machine(), started="1")
        record(store).write_text(dead.model_dump_json())
    at_once, refused = threading.Barrier(8), []

    def start(number):
        own = Store.open(store.root)
        at_once.wait()
        try:
            with own.lease(f"campaign {number}", patience=60) as lease:
                while len(refused) < 7:  # a slow one may look for the first time only now
                    lease.renew({})
                    time.sleep(0.01)
                return True
        except InputError:
            refused.append(number)
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(start, range(8))) == 1


def test_processes_are_known_to_live_or_not():
    assert _start_of(os.getpid()) and _start_of(os.getpid()) == _start_of(os.getpid())
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert _start_of(process.pid) is None  # ended, though its parent has not asked yet
    process.wait()
    assert _start_of(process.pid) is None
