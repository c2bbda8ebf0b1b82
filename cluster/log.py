"""The log of a campaign: one line per event, `name=value` throughout, so that it can be read and searched."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from editors.core.errors import InputError
from editors.core.places import scrubbed
from editors.core.printable import in_json, shortened

LOGGER = logging.getLogger("editfleet")


def log_event(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Writes one line: the event, then what belongs to it. Fields that are None or empty are left out."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, event, extra={"fields": fields})


@contextmanager
def logging_to(path: Path | None) -> Iterator[None]:
    """Lines of all events go to the end of a file, or without one to standard error. Raises `InputError` for a file
    that cannot be written."""
    try:
        stream = _added_to(path) if path else sys.stderr
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write the log '{path}': {getattr(error, 'strerror', None) or error}") from error
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines())
    try:
        with logged_by(handler):
            yield
    finally:
        if path:
            stream.close()


@contextmanager
def logged_by(handler: logging.Handler) -> Iterator[None]:
    """All events go to a handler, too."""
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
        LOGGER.removeHandler(handler)
        handler.close()


def _added_to(path: Path) -> TextIO:
    """A file to be added to. Of a pipe that nobody reads, this is an `OSError`: to open it else would wait for ever."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o666)
    os.set_blocking(number, True)
    return os.fdopen(number, "a", encoding="utf-8")


class Lines(logging.Formatter):
    """`2026-11-25T12:00:00Z task-done task=0123 seconds=1.5 title="a title"`; only warnings say their level."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        fields = {"level": record.levelname.lower() if record.levelno > logging.INFO else None,
                  **getattr(record, "fields", {})}
        shown = [f"{name}={_quoted(value)}" for name, value in fields.items() if value not in (None, "")]
        return " ".join([self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"), record.getMessage(), *shown])


def _quoted(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else shortened(scrubbed(str(value)))
    plain = text.isprintable() and not any(char in ' "=' for char in text)
    return text if plain else in_json(json.dumps(text, ensure_ascii=False))
