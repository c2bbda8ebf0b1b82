"""The log of a campaign in its store, where it stays when the machine of its driver is gone."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from cluster.log import Lines, logged_by
from cluster.store.store import Store

INTERVAL = 60.0  # seconds between writes
PART = 1 << 20  # bytes, about, of one file: a part that is full is not written again
LAST = 5.0  # seconds that the end waits for what is not written yet


@contextmanager
def kept_in(store: Store, interval: float = INTERVAL) -> Iterator[None]:
    """Lines of all events of the block go to the store's `logs`, every minute and at its end, however it ends. Nobody
    waits for them but for some seconds at the end, and a store that does not take them is no harm: others will notice.
    """
    journal = Journal(store)
    over = threading.Event()

    def write() -> None:
        while not over.wait(interval):
            journal.write()
        journal.write()

    writer = threading.Thread(target=write, name="journal", daemon=True)
    with logged_by(journal):
        writer.start()
        try:
            yield
        finally:
            over.set()
            writer.join(LAST)


class Journal(logging.Handler):
    """Keeps lines until the store has them, in parts: files named by when the run began, a word that tells it from
    others that began at that moment, and their number. The last part is written anew as it grows."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.setFormatter(Lines())
        self._store = store
        self._run = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._parts: dict[int, list[str]] = {}
        self._last, self._size = 1, 0
        #: Parts with lines that the store does not have.
        self._unwritten = set[int]()

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + "\n"
        with self._lock:
            if self._size >= PART:
                self._last, self._size = self._last + 1, 0
            self._parts.setdefault(self._last, []).append(line)
            self._size += len(line)
            self._unwritten.add(self._last)

    def write(self) -> None:
        """Writes what the store does not have yet; lines may come meanwhile."""
        with self._turn:
            with self._lock:
                texts = {number: "".join(self._parts[number]) for number in sorted(self._unwritten)}
                self._unwritten.clear()
            for number, text in texts.items():
                try:
                    self._store.write_log(f"{self._run}-{number:04}", text)
                except Exception:  # of a driver of fsspec, any; a campaign does not end for its log
                    with self._lock:
                        self._unwritten.add(number)  # for the next time
                    continue
                with self._lock:
                    if number < self._last:
                        del self._parts[number]
