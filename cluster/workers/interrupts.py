"""Signals that end a block as Ctrl-C does, so that nothing is left behind. Loads no Ray."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupted_by(*signals: signal.Signals, told: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Has each of these raise `KeyboardInterrupt` during the block, once it was `told`; only in the main thread, where
    alone handlers can be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        told()
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
