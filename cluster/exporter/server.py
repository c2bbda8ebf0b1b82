"""The exporter: serves what a driver publishes to Prometheus, over HTTP."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from cluster.exporter.latest import Latest
from cluster.exporter.snapshot import Snapshot
from cluster.log import log_event
from editors.core.errors import InputError, quoted
from editors.core.files import atomic, no_file

PORTS = 10  # that are tried, from the one that was asked for on
LAST = 65535


class Publisher(Protocol):
    """Takes a campaign's snapshots."""

    @property
    def wanted(self) -> bool:
        """Whether one is wanted now."""

    def publish(self, snapshot: Snapshot) -> None: ...


@dataclass
class Exporter:
    """Hands snapshots on; `address` is where people find them, if anywhere."""

    publishers: tuple[Publisher, ...]
    address: str | None = None

    @property
    def wanted(self) -> bool:
        return any(publisher.wanted for publisher in self.publishers)

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
    for port in range(first, min(first + PORTS, LAST + 1)):
        try:
            server = _Server(bind, port, latest)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise InputError(f"cannot serve metrics at {quoted(bind)}, port {port}: {error.strerror or error}; "
                             "--metrics-bind takes an address of this machine, and --metrics-port a port that this "
                             "user may open") from error
        except ValueError as error:  # of a name that no host can have
            raise InputError(f"--metrics-bind: {quoted(bind)} is no address") from error
        with server:
            thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
            thread.start()
            try:
                yield port
            finally:
                server.over = True
                server.shutdown()
                thread.join()
        return
    raise InputError(f"cannot serve metrics at {quoted(bind)}: ports {first} to {port} are all taken; choose another "
                     "--metrics-port")


class _Server(ThreadingHTTPServer):
    """Answers every GET with what there is to show. Who asks keeps a connection, which has a thread of its own, for
    which no end waits."""

    over = False  # and answers nobody any more

    def __init__(self, bind: str, port: int, latest: Latest) -> None:
        [(self.address_family, *_, address), *_] = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)
        self.latest = latest
        super().__init__((str(address[0]), port), _Answer)

    def server_bind(self) -> None:
        """Without the host's name, which a resolver may be asked for."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked has gone; there is nobody to tell."""


class _Answer(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"  # Prometheus comes again and again
    wbufsize = -1  # so that an answer is sent as one
    timeout = 180  # seconds for the next request to come

    def do_GET(self) -> None:
        if self.server.over:
            self.close_connection = True
            return
        text = self.server.latest.text()
        self.send_response_only(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """The log is a campaign's."""


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
