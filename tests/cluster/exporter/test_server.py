"""Where metrics are served, and who is told."""

from __future__ import annotations

import json
import socket
import urllib.request

import pytest
from support.processes import free_port
from support.watched import Watched, score

from cluster.exporter.server import PORTS, serving
from editors.core.errors import InputError


def fetched(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def port_of(exporter):
    return int(exporter.address.rpartition(":")[2].partition("/")[0])


def test_it_serves_the_latest_snapshot_on_loopback_alone_and_ends_with_the_block():
    watched = Watched({"a": ((), score())})
    with serving(free_port(), "127.0.0.1") as exporter:
        assert exporter.address.startswith("http://127.0.0.1:") and "editfleet" not in fetched(exporter.address)
        exporter.publish(watched.gauges.snapshot(watched.state, watched.progress))
        assert 'editfleet_tasks{campaign="small",kind="score",state="running"} 1.0' in fetched(exporter.address)
        with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port_of(exporter)), 1):
            pass  # it would answer at every address of the machine
    with pytest.raises(OSError):
        fetched(exporter.address)


def test_a_port_that_is_taken_is_passed_over_and_ten_are_too_many():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        first = taken.getsockname()[1]
        with serving(first, "127.0.0.1") as one, serving(first, "127.0.0.1") as two:
            assert first < port_of(one) < port_of(two) < first + PORTS
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65535))
        taken.listen()
        with pytest.raises(InputError, match="ports 65535 to 65535 are all taken"), serving(65535, "127.0.0.1"):
            pass


def test_another_address_of_the_machine_is_told_by_its_name():
    with serving(free_port(), "0.0.0.0") as exporter:
        assert exporter.address.startswith(f"http://{socket.gethostname()}:")


@pytest.mark.parametrize("bind", [
    "", " ", "no such host", "192.0.2.1", "a" * 300, "127.0.0.1:80", "127.0.0.1\n", "\ud800", "\0"])
def test_what_is_no_address_of_this_machine_is_refused(bind):
    with pytest.raises(InputError, match="--metrics-bind") as refused, serving(free_port(), bind):
        pass
    assert "\n" not in str(refused.value)


def test_a_file_tells_prometheus_where_metrics_are_until_they_are_not(tmp_path):
    path = tmp_path / "targets.json"
    with serving(free_port(), "127.0.0.1", path) as exporter:
        assert json.loads(path.read_text()) == [{"targets": [f"127.0.0.1:{port_of(exporter)}"]}]
        assert [each.name for each in tmp_path.iterdir()] == ["targets.json"]
    assert not path.exists()


def test_a_file_that_another_campaign_has_replaced_stays(tmp_path):
    path = tmp_path / "targets.json"
    with serving(free_port(), "127.0.0.1", path):
        path.write_text("[]")
    assert path.read_text() == "[]"


@pytest.mark.parametrize("name", ["absent/targets.json", ".", "x" * 300])
def test_a_file_that_cannot_be_written_is_refused(tmp_path, name):
    port = free_port()
    with pytest.raises(InputError, match="--metrics-sd: cannot write"), serving(port, "127.0.0.1", tmp_path / name):
        pass
    with serving(port, "127.0.0.1") as exporter:  # and the port is free again
        assert port_of(exporter) == port
