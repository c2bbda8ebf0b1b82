"""What Prometheus is answered: the newest snapshot as text, made when somebody asks."""

from __future__ import annotations

import threading
import time

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, generate_latest

from cluster.exporter.snapshot import Snapshot
from cluster.exporter.text import TextWriter

FRESH = 1.0  # seconds for which a snapshot is good enough for whoever asks
PATIENCE = 2.0  # seconds that who asks waits for a driver that does not come to it; Prometheus waits for ten


class Latest:
    """The newest snapshot. It is wanted where somebody has asked and the last one is old: so a driver makes none that
    nobody reads, and of many who ask they cost it no more than one a second."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._made = float("-inf")
        self._writer: TextWriter | None = None
        self._process = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self._process)
        self._changed, self._writing = threading.Condition(), threading.Lock()
        #: Whether a driver should publish. The first snapshot is wanted of itself.
        self.wanted = True

    def publish(self, snapshot: Snapshot) -> None:
        with self._changed:
            self._snapshot, self._made, self.wanted = snapshot, time.monotonic(), False
            self._changed.notify_all()

    def ask(self) -> None:
        """Says that a snapshot is wanted, unless the last one is fresh."""
        if time.monotonic() - self._made >= FRESH:
            self.wanted = True

    def text(self) -> bytes:
        """All there is to show, of this moment if the driver comes to it in time, and what this process takes."""
        self.ask()
        with self._changed:
            if self._snapshot is not None:  # else no driver has begun, and nobody knows when one will
                self._changed.wait_for(lambda: not self.wanted, PATIENCE)
            snapshot = self._snapshot
        return self.written(snapshot) + generate_latest(self._process)

    def written(self, snapshot: Snapshot | None) -> bytes:
        if snapshot is None:
            return b""
        with self._writing:
            if self._writer is None or self._writer.campaign != snapshot.campaign:
                self._writer = TextWriter(snapshot.campaign)
            return self._writer.text(snapshot)
