"""One driver per store: a record that is renewed as long as the driver lives, and that others can see go still.

Wall clocks are never compared: those of two machines differ, and they jump. Whoever finds a record watches it by a
clock of its own; only on the machine that wrote it is a process known to be dead at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.store.errors import LeaseLost, StoreError
from cluster.store.files import Files
from editors.core.errors import InputError

FILE = "driver.json"
RENEWAL = 5.0  # seconds between renewals
PATIENCE = 30.0  # seconds without renewal after which a driver is taken for dead
SETTLE = 2.0  # seconds after which two that wrote at once both see whose record stayed, where there are no locks


class DriverRecord(BaseModel):
    """Who runs a campaign into a store. `counter` grows with every renewal; `state` is what the driver tells others.

    `machine` and `started` tell processes apart that a host name and a number do not.
    """

    model_config = ConfigDict(frozen=True)

    token: str
    campaign: str
    host: str
    pid: int = Field(gt=0, lt=2**31)
    machine: str
    started: str
    counter: int = 0
    state: dict[str, Any] = {}

    @property
    def who(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def surely_dead(self) -> bool:
        """Whether its process has ended, which only its own machine knows."""
        return self.machine == _machine() and _start_of(self.pid) != self.started


class Lease:
    """Held by the one driver of a store; made by `hold`, which keeps it alive whatever takes the driver long."""

    def __init__(self, files: Files, record: DriverRecord) -> None:
        self._files, self.record = files, record
        self._turn, self._over = threading.Lock(), threading.Event()

    def renew(self, state: dict[str, Any] | None = None) -> None:
        """Tells how far this driver is; to be called often, as it also tells whether it still is the one.

        Raises `LeaseLost`, a `StoreError`, where another driver has taken over: then this one must stop.
        """
        with self._turn, self._files.exclusively():
            found = read_driver(self._files)
            if found is None:
                self._files.check()
                raise LeaseLost(f"store '{self._files.place}' has no {FILE} any more: another driver took it over and "
                                "has ended, or somebody deleted the file; this driver stops")
            if found.token != self.record.token:
                raise LeaseLost(f"{found.who} has taken store '{self._files.place}' over and runs campaign "
                                f"'{found.campaign}' into it; this driver stops")
            self.record = self.record.model_copy(update={
                "counter": self.record.counter + 1, "state": self.record.state if state is None else state})
            _write(self._files, self.record)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renews it every few seconds during the block. Who finds out that it is lost is the driver, by `renew`."""

        def keep() -> None:
            while not self._over.wait(RENEWAL):
                try:
                    self.renew()
                except LeaseLost:
                    return
                except StoreError:
                    continue  # the store may come back

        keeper = threading.Thread(target=keep, name="lease", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            self._over.set()
            keeper.join(RENEWAL)

    def release(self) -> None:
        with contextlib.suppress(StoreError), self._files.exclusively():  # the next driver copes with what is left
            found = read_driver(self._files)
            if found is not None and found.token == self.record.token:
                self._files.remove(FILE)


@contextmanager
def hold(files: Files, campaign: str, patience: float = PATIENCE) -> Iterator[Lease]:
    """Holds a store's lease. Takes over from a driver that is dead, or does not renew for `patience` seconds.

    Raises `InputError` where another driver lives. Of two that start at once, at most one goes on.
    """
    lease = Lease(files, _acquire(files, campaign, patience))
    try:
        with lease.kept():
            yield lease
    finally:
        lease.release()


def read_driver(files: Files) -> DriverRecord | None:
    """The record of the driver that holds the store, or was killed holding it; None where there is none."""
    try:
        return DriverRecord.model_validate_json(files.read(FILE))
    except (OSError, ValidationError):
        return None


def _acquire(files: Files, campaign: str, patience: float) -> DriverRecord:
    ours = DriverRecord(token=uuid.uuid4().hex, campaign=campaign, host=socket.gethostname(), pid=os.getpid(),
                        machine=_machine(), started=_start_of(os.getpid()) or "")
    watched = read_driver(files)
    watched_since = time.monotonic()
    while True:
        with files.exclusively() as alone:
            found = read_driver(files)
            if found is not None and found != watched:
                raise _taken(found, files.place)
            if found is None or found.surely_dead or time.monotonic() - watched_since >= patience:
                _write(files, ours)
                break
        time.sleep(min(1.0, patience / 10))
    if not alone:
        time.sleep(SETTLE)
        found = read_driver(files)
        if found is None or found.token != ours.token:
            raise _taken(found, files.place)
    return ours


def _taken(found: DriverRecord | None, place: str) -> InputError:
    if found is None:
        return InputError(f"another driver took store '{place}' at the same time; run the command again")
    return InputError(f"campaign '{found.campaign}' is being run into store '{place}' by {found.who}. Wait until it is "
                      f"done, stop it there (kill {found.pid}), or choose another --out")


def _write(files: Files, record: DriverRecord) -> None:
    files.write(FILE, record.model_dump_json().encode())


def _machine() -> str:
    """What process numbers are unique in: one run of one machine, or one container on it."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return f"{socket.gethostname()} {uuid.getnode():x}"


def _start_of(pid: int) -> str | None:
    """When a process started, in the kernel's own count (elsewhere ""); None for one that has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it is another user's
    with contextlib.suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    return ""
