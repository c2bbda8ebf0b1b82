"""The log: one line per event, whatever is in it."""

import logging
import re

import pytest

from cluster.log import LOGGER, log_event, logging_to
from editors.core.errors import InputError


def test_events_are_lines_of_names_and_values(tmp_path):
    path = tmp_path / "run.log"
    with logging_to(path):
        log_event("task-done", task="0123", worker=3, seconds=1.23456, title="ft on tiny: cases 1-2", parts=None)
        log_event("worker-lost", level=logging.WARNING, reason='line one\nsays "no"', task="")
    first, second = path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ task-done task=0123 worker=3 seconds=1.23 '
                        r'title="ft on tiny: cases 1-2"', first)
    assert second.endswith(r'Z worker-lost level=warning reason="line one\nsays \"no\""')


def test_a_log_is_continued_and_ends_with_its_block(tmp_path):
    path = tmp_path / "run.log"
    for number in range(2):
        with logging_to(path):
            log_event("campaign-start", number=number)
        log_event("nobody listens")
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["number=0", "number=1"]
    assert not LOGGER.handlers


def test_a_log_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot write the log"), logging_to(tmp_path / "none" / "run.log"):
        pass
