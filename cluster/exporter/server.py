"""The exporter: serves what a driver publishes to Prometheus, over HTTP."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prometheus_client import start_http_server

from cluster.exporter.collector import Latest, registry_of
from cluster.exporter.snapshot import Snapshot
from cluster.log import log_event
from editors.core.errors import InputError, quoted
from editors.core.files import atomic, no_file

PORTS = 10  # that are tried, from the one that was asked for on
LAST = 65535


class Publisher(Protocol):
    """Takes a campaign's snapshots, one every few seconds."""

    def publish(self, snapshot: Snapshot) -> None: ...


@dataclass
class Exporter:
    """Hands snapshots on; `address` is where people find them, if anywhere."""

    publishers: tuple[Publisher, ...]
    address: str | None = None

    def publish(self, snapshot: Snapshot) -> None:
        for publisher in self.publishers:
            publisher.publish(snapshot)


@contextmanager
def serving(port: int, bind: str, targets: Path | None = None,
            others: tuple[Publisher, ...] = ()) -> Iterator[Exporter]:
    """Serves metrics during the block, at this port or the next free of ten, of the address `bind`. The file `targets`
    tells Prometheus where (`file_sd`), and goes with the block.

    Raises `InputError` where all of these ports are taken, or the address or the file cannot be used.
    """
    latest = Latest()
    with ExitStack() as stack:
        place = _place(bind, stack.enter_context(_listening(port, bind, latest)))
        if targets is not None:
            stack.enter_context(_told(targets, place))
        exporter = Exporter((latest, *others), f"http://{place}/metrics")
        log_event("metrics-at", address=exporter.address)
        yield exporter


@contextmanager
def _listening(first: int, bind: str, latest: Latest) -> Iterator[int]:
    """Yields the port at which metrics are served."""
    if not bind.strip():  # which would be every address
        raise InputError("--metrics-bind names no address; 127.0.0.1 shows metrics to this machine alone")
    registry = registry_of(latest)
    for port in range(first, min(first + PORTS, LAST + 1)):
        try:
            server, thread = start_http_server(port, bind, registry)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise InputError(f"cannot serve metrics at {quoted(bind)}, port {port}: {error.strerror or error}; "
                             "--metrics-bind takes an address of this machine, and --metrics-port a port that this "
                             "user may open") from error
        except ValueError as error:  # of a name that no host can have
            raise InputError(f"--metrics-bind: {quoted(bind)} is no address") from error
        try:
            yield port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
        return
    raise InputError(f"cannot serve metrics at {quoted(bind)}: ports {first} to {port} are all taken; choose another "
                     "--metrics-port")


def _place(bind: str, port: int) -> str:
    """Where it can be reached, as URLs have it."""
    host = socket.gethostname() if bind in ("0.0.0.0", "::") else bind
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def _told(path: Path, place: str) -> Iterator[None]:
    """Has a file say where metrics are, for as long as they are there."""
    content = json.dumps([{"targets": [place]}]) + "\n"
    if kind := no_file(path):
        raise InputError(f"--metrics-sd: cannot write {quoted(str(path))}: it is {kind}; name a file")
    try:
        with atomic(path) as partial:
            partial.write_text(content, encoding="utf-8")
            partial.chmod(0o644)  # Prometheus is another user
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise InputError(f"--metrics-sd: cannot write {quoted(str(path))}: {told}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_text(encoding="utf-8") == content:  # else it is another campaign's by now
                path.unlink()
