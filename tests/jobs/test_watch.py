"""`editfleet watch`, and the options of `run` that show a campaign to others."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.processes import free_port
from support.watched import Watched, score

from cluster.exporter.gauges import Gauges
from cluster.exporter.glance import glance
from cluster.exporter.server import serving
from cluster.scheduler.events import TaskFailed
from cluster.store.store import Store
from jobs import watch as watching
from jobs.console import Screen
from jobs.looks import look

NASTY = "\x1b[31mred\n\u202eevil"


def campaign(title="ft on m: cases 1-2", **names):
    """A campaign in the middle: a task done, one failed once, one at work; and what its driver tells of it."""
    names = {"models": ["m"], **names}
    tasks = {task: ((), score(names["models"][0])) for task in ("a", "b", "c")}
    watched = Watched(tasks, workers=1, **names)
    watched.time(0)
    watched.time(20)
    watched.finish()
    watched.tell(TaskFailed(0, watched.doing(), "no"))
    watched.time(3)
    watched.tally.store_took("write", 0.25, False)
    watched.show()
    told = glance(watched.tally, watched.gauges, watched.state, watched.progress, {0: title},
                  "http://127.0.0.1:1/metrics")
    return watched, told


@contextmanager
def running(store, state):
    with Store.open(store).lease("small") as lease:
        lease.renew(state)
        yield


@contextmanager
def answering(body):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()


def test_a_store_and_the_metrics_tell_the_same(invoke, done):
    watched, told = campaign()
    with running(done, told.model_dump(mode="json")), serving(free_port(), "127.0.0.1") as exporter:
        exporter.publish(watched.gauges.snapshot(watched.state, watched.progress))
        by_store, by_metrics = (invoke("watch", place, "--once") for place in (done, exporter.address))
    assert by_store.exit_code == by_metrics.exit_code == 0
    lines = by_store.stdout.splitlines()
    assert lines[0].startswith("small by process ") and lines[0].endswith("1/3 tasks, 4/12 edits, 33%, 46 s left")
    for line in ("  worker 0: ft on m: cases 1-2, for 3 s", "metrics: http://127.0.0.1:1/metrics"):
        assert line in lines and line not in by_metrics.stdout
    for line in ("workers: 1 up", "tried again: 1 raised", "went wrong: 1 raised",
                 "store, write: 1 call, 250 ms in the mean, 95 % 0.5 s at most",
                 "  ft on m, d, single 1: reliability.exact 75.0% of 4 scores"):
        assert line in lines and line in by_metrics.stdout.splitlines()
    assert by_metrics.stdout.splitlines()[0] == "small: 1/3 tasks, 4/12 edits, 33%, 46 s left"


def test_json_is_one_line_of_all_there_is(invoke, done):
    _, told = campaign()
    with running(done, told.model_dump(mode="json")):
        result = invoke("watch", done, "--once", "--json")
    [line] = result.stdout.splitlines()
    found = json.loads(line)
    assert (found["campaign"], found["standing"], found["glance"]["share"]) == ("small", "running", 1 / 3)
    assert found["glance"] == told.model_dump(mode="json") and found["glance"]["seconds"] == {"0": 3.0}


@pytest.mark.parametrize("state", [{"tasks": 9, "done": 3, "workers": 2, "at": {"0": "a title"}}, {"workers": "many"},
                                   {"share": "NaN"}, {}])
def test_records_of_other_versions_are_read(invoke, done, state):
    with running(done, state):
        result = invoke("watch", done, "--once")
    assert result.exit_code == 0 and result.stdout.startswith("small by process ")
    if "done" in state:
        assert "3/9 tasks" in result.stdout and "33%" in result.stdout and "worker 0: a title\n" in result.stdout


def test_a_finished_a_stopped_and_a_dead_campaign_are_told_in_one_line(invoke, done):
    finished = invoke("watch", done)
    assert (finished.exit_code, finished.stdout) == (0, "small is finished: 9 of 9 tasks done\n")
    store = Store.open(done)
    store.remove(next(task for task in store.campaigns()[0].tasks if task.kind == "score").key)
    stopped = invoke("watch", done)
    assert (stopped.exit_code, stopped.stdout) == (
        1, "small is not being run: 8 of 9 tasks done; running it again goes on\n")
    with running(done, {}):
        record = store.driver().model_copy(update={"started": "long ago"})
        Path(done, "driver.json").write_text(record.model_dump_json())
        dead = invoke("watch", done)
    assert dead.exit_code == 1 and "which is dead: 8 of 9 tasks done" in dead.stdout and dead.stdout.count("\n") == 1


def test_places_where_no_campaign_is_are_wrong_input(invoke, tmp_path):
    Store.create(tmp_path / "empty")
    with answering(b"<html>hello</html>") as page, answering(b"# TYPE up gauge\nup 1\n") as others, \
            answering(b'editfleet_campaign_info{campaign="x"} NaN\n') as half:
        for place, told in ((tmp_path / "absent", "there is no store"), (tmp_path / "empty", "no campaign was run"),
                            (f"http://127.0.0.1:{free_port()}/metrics", "nothing of a campaign"),
                            (page, "no metrics of a campaign"), (others, "no metrics of a campaign"),
                            (half, "no metrics of a campaign"), ("http://", "nothing of a campaign"),
                            ("https://me:secret@nowhere.invalid/x", "nothing of a campaign")):
            result = invoke("watch", place)
            assert result.exit_code == 2 and told in result.stderr and result.stderr.count("\n") == 1, place
            assert "Traceback" not in result.output and "secret" not in result.output


def test_nothing_in_it_is_obeyed_by_the_terminal(invoke, done):
    watched, told = campaign(NASTY, models=[NASTY], name=NASTY)
    with running(done, told.model_dump(mode="json")), serving(free_port(), "127.0.0.1") as exporter:
        exporter.publish(watched.gauges.snapshot(watched.state, watched.progress))
        for place in (done, exporter.address):
            for options in ([], ["--json"]):
                shown = invoke("watch", place, "--once", *options).stdout
                assert "red" in shown and not {"\x1b", "\u202e"} & set(shown)
    screen = Screen(file=io.StringIO(), force_terminal=True, color_system=None, width=100, markup=False)
    with running(done, {**told.model_dump(mode="json"), "done": 3}):
        seen = look(str(done)).model_copy(update={"standing": "done", "campaign": NASTY})
        watching._live(screen, str(done), seen, 1.0)
    assert "\u202e" not in screen.file.getvalue() and r"\x1b[31mred\n\u202eevil is finished" in screen.file.getvalue()


def test_it_follows_until_the_end(done, monkeypatch):
    _, told = campaign()
    screens = [Screen(file=io.StringIO(), width=120, markup=False),
               Screen(file=io.StringIO(), width=120, markup=False, force_terminal=True, color_system=None)]
    for screen, follow in zip(screens, (watching._in_lines, watching._live), strict=True):
        with running(done, told.model_dump(mode="json")):
            first = look(str(done))
        monkeypatch.setattr(watching.time, "sleep", lambda seconds: None)
        assert follow(screen, str(done), first, 1.0).standing == "done"
        assert screen.file.getvalue().splitlines()[-1].endswith("small is finished: 9 of 9 tasks done")
        assert "1/3 tasks" in screen.file.getvalue()
    assert screens[0].file.getvalue().count("\n") == 2 and "━" in screens[1].file.getvalue()


def test_metrics_that_are_gone_end_it_after_a_while(monkeypatch):
    watched, _ = campaign()
    clock = iter(range(0, 1000, 10))
    with serving(free_port(), "127.0.0.1") as exporter:
        exporter.publish(watched.gauges.snapshot(watched.state, watched.progress))
        first = look(exporter.address)
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(watching.time, "monotonic", lambda: next(clock))
    seen = [each.standing for each, _ in watching.looks(exporter.address, first, 1.0)]
    assert set(seen[:-1]) == {"running"} and seen[-1] == "gone" and len(seen) > 2


# --- options of `run`


def test_run_tells_where_its_metrics_are_and_removes_the_file(invoke, write_campaign, tmp_path, monkeypatch):
    port, file, seen, real = free_port(), tmp_path / "sd.json", [], Gauges.snapshot
    monkeypatch.setattr("cluster.exporter.gauges.Gauges.snapshot",
                        lambda self, *arguments: seen.append(file.read_text()) or real(self, *arguments))
    result = invoke("run", write_campaign(), "--out", tmp_path / "store", "--metrics-port", port, "--metrics-sd", file)
    assert result.exit_code == 0 and f"Metrics: http://127.0.0.1:{port}/metrics" in result.stdout
    assert seen and set(seen) == {json.dumps([{"targets": [f"127.0.0.1:{port}"]}]) + "\n"} and not file.exists()


@pytest.mark.parametrize(("options", "told"), [
    (["--metrics-port", "0"], "--metrics-port"), (["--metrics-port", "65536"], "--metrics-port"),
    (["--metrics-port", "9464", "--metrics-bind", "nowhere.invalid"], "--metrics-bind"),
    (["--metrics-port", "9464", "--metrics-bind", ""], "--metrics-bind"),
    (["--metrics-port", "9464", "--metrics-sd", "absent/sd.json"], "--metrics-sd"),
    (["--metrics-sd", "sd.json"], "--metrics-port")])
def test_wrong_options_end_with_2_before_anything_is_planned(invoke, tmp_path, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    result = invoke("run", "no such campaign", *options)
    assert result.exit_code == 2 and told in result.stderr and "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []
