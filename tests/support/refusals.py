"""What a command does with wrong input: it says in an `Error:` line what and where, soon, and without a traceback."""

from __future__ import annotations

import re
import time
from pathlib import Path

from typer.testing import CliRunner

from jobs.cli import app

SECONDS, BYTES = 5.0, 1e9  # of one thread, and beyond what the process had
LONGEST = 4000  # characters of a message


def refused(arguments, parts, code=2):
    """Raises `AssertionError` unless the command refuses its input as it should, naming all the parts; the message."""
    before, started = _peak(), time.process_time()
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    spent, grown = time.process_time() - started, _peak() - before
    told = re.sub(r"[\s│╭╮╰╯─]+", " ", result.stderr)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == code, f"{result.exit_code}: {result.output}"
    assert "Error" in told and "Traceback" not in told, told
    assert len(told) <= LONGEST, f"{len(told)} characters: {told[:500]}"
    for part in parts:
        assert part in told, f"{part!r} is not in: {told}"
    assert spent < SECONDS and grown < BYTES, f"{spent:.1f} s, {grown / 1e6:.0f} MB"
    return told


def _peak():
    """The most memory that this process had, in bytes, since this was last asked, where the kernel says."""
    status = Path("/proc/self/status")
    peak = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) * 1024 if status.exists() else 0
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    except OSError:
        return 0
    return peak
