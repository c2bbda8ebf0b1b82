"""How far something is: lines now and then without a terminal, a bar on one."""

import io
import os
import re
import subprocess
import sys

import pytest
from rich.console import Console

from jobs.progress import progress


def screen(**options):
    return Console(file=io.StringIO(), width=100, **options)


def test_without_a_terminal_lines_are_spaced_and_the_last_is_shown(monkeypatch):
    clock = iter([0.0, 0.0, 3.0, 11.0, 11.0, 12.0, 12.0, 12.0])
    monkeypatch.setattr("jobs.progress.time.monotonic", lambda: next(clock))
    shown = screen()
    with progress(shown, interval=10) as tell:
        for done in range(4):
            tell(f"{done} of 4", done, 4)  # at 0, 3, 11 and 12 seconds
        assert shown.file.getvalue().split("\n") == ["0 of 4", "2 of 4", ""]
    assert shown.file.getvalue().split("\n") == ["0 of 4", "2 of 4", "3 of 4", ""]


def test_a_line_is_not_repeated_and_the_last_is_shown_when_interrupted():
    shown = screen()
    with pytest.raises(KeyboardInterrupt), progress(shown) as tell:
        tell("1 of 4", 1, 4)
        tell("1 of 4", 1, 4)
        tell("2 of 4", 2, 4)
        raise KeyboardInterrupt
    assert shown.file.getvalue() == "1 of 4\n2 of 4\n"


def test_on_a_terminal_there_is_a_bar_with_the_line():
    shown = screen(force_terminal=True)
    with progress(shown) as tell:
        tell("half", 1, 2)
        tell("all of it", 2, 2)
    assert "━" * 20 in shown.file.getvalue() and "all of it" in shown.file.getvalue()


def test_a_bar_whose_length_is_not_known_is_fine():
    shown = screen(force_terminal=True)
    with progress(shown) as tell:
        tell("step 5", 5, None)
    assert "step 5" in shown.file.getvalue()


WRITERS = """
import threading
from cluster.log import log_event, logging_to
from jobs.console import console
from jobs.progress import progress

def log(writer):
    for number in range(300):
        log_event("task-done", writer=writer, number=number, title="a title " * 20)

with logging_to(None), progress(console(), interval=0) as tell:
    writers = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for number in range(300):
        tell(f"{number}/300 tasks, {'an edit ' * 20}", number, 300)
    for writer in writers:
        writer.join()
"""


def test_lines_of_progress_and_of_events_are_whole_where_both_go_to_one_pipe():
    done = subprocess.run([sys.executable, "-c", WRITERS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=True)
    progressed = re.compile(rf"(\d+)/300 tasks, {'an edit ' * 20}")
    event = re.compile(rf'\S+Z task-done writer=(\d) number=(\d+) title="{"a title " * 20}"')
    found = [progressed.fullmatch(line) or event.fullmatch(line) for line in done.stdout.splitlines()]
    assert all(found), [line for line, whole in zip(done.stdout.splitlines(), found, strict=True) if not whole][:3]
    wanted = {(str(number),) for number in range(300)}
    wanted |= {(str(writer), str(number)) for writer in range(4) for number in range(300)}
    assert len(found) == len(wanted) and {line.groups() for line in found} == wanted
