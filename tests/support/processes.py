"""Processes that tests start, as tests look for them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import psutil

LIMIT = 300  # seconds, on a machine that is busy with something else


def titled(text):
    """Ids of the processes below this one whose title has this in it, from the lowest; without their children, who have
    their title until they have one of their own."""
    parents = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if text in " ".join(process.cmdline()):
                parents[process.pid] = process.ppid()
    return sorted(process for process, parent in parents.items() if parent not in parents)


def marked(mark, value):
    """Ids of the processes that were started with a variable of this value in their environment."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(mark) == value:
                found.add(process.pid)
    return found


def wait_for(condition):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(server):
    """A server of `socketserver`'s that answers during the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with server:
        yield server
        server.shutdown()
    thread.join()
