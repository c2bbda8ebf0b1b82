"""Nobody else gets in: what listens while a campaign runs on this machine serves no call without the run's token."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from cluster.campaign.spec import WorkerSpec
from cluster.workers import access, connect
from cluster.workers.access import is_open, own_token
from cluster.workers.connect import joined_ray, ray_folder, started_ray

OUTSIDE = "10.99.0.1"  # an address of the namespace's own, which nothing outside of it knows
HOME = Path(__file__).parents[3]

# Loopback has the address as well, and a default route has Ray take it for the machine's own.
NAMESPACE = f"ip link set lo up && ip addr add {OUTSIDE}/32 dev lo && ip route add default dev lo && exec \"$@\""

# In the namespace: a gang of two ranks as a campaign starts it; every port is tried in every way that Ray has.
PROGRAM = """
import re, socket, sys
from pathlib import Path
import grpc, psutil, ray, requests
from cluster.campaign.spec import WorkerSpec
from cluster.store.store import Store
from cluster.workers.pool import ray_pool

outside, store, wanted = sys.argv[1:]
binary = Path(ray.__file__).parent / "core/src/ray/raylet/raylet"
methods = sorted(set(re.findall(rb"ray\\.rpc\\.[A-Za-z.]+/[A-Za-z]+", binary.read_bytes())))
assert len(methods) > 100, methods
methods = [method for method in map(bytes.decode, methods) if re.search(wanted, method)]

def call(channel, method, metadata):
    try:
        channel.unary_unary(f"/{method}")(b"", timeout=10, metadata=metadata)
        return "served"
    except grpc.RpcError as error:
        return error.code().name

with ray_pool(Store.create(store), WorkerSpec(count=1, devices=2)) as pool:
    pool.start(0)
    while not pool.wait(1.0):
        pass
    for found in psutil.net_connections("tcp"):
        if found.status != psutil.CONN_LISTEN:
            continue
        who = re.sub(r".*/|\\W+$", "", psutil.Process(found.pid).cmdline()[0])
        address = f"{outside}:{found.laddr.port}"
        with grpc.insecure_channel(address) as channel:
            for metadata in ([], [("authorization", "Bearer " + "0" * 64)]):
                codes = {method: call(channel, method, metadata) for method in methods}
                print("grpc", who, *sorted(set(codes.values())))
        with socket.socket() as plain:
            if plain.connect_ex((outside, found.laddr.port)) == 0 and "UNAUTHENTICATED" not in codes.values():
                print("tcp", who)  # can be reached, and is none of Ray's services
        for path in ("/", "/metrics", "/api/jobs/"):
            try:
                reply = requests.get(f"http://{address}{path}", timeout=10)
                print("http", who, reply.status_code, "metrics" if reply.text.startswith("# HELP") else path)
            except requests.ConnectionError:
                pass
"""


def _in_namespace(folder, wanted, **environment):
    """What the program prints, in a network namespace of its own, of the methods that are wanted."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("unshare and iproute2 are not installed")
    unshare = ["unshare", "--net", *([] if os.getuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*unshare, "sh", "-c", NAMESPACE, "sh", "true"], capture_output=True).returncode:
        pytest.skip("network namespaces cannot be made here")
    program = [sys.executable, "-c", PROGRAM, OUTSIDE, str(folder / "store"), wanted]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    result = subprocess.run([*unshare, "sh", "-c", NAMESPACE, "sh", *program], capture_output=True, text=True,
                            timeout=300, cwd=HOME, env={**clean, "PYTHONPATH": str(HOME), **environment})
    assert result.returncode == 0, result.stdout + result.stderr
    return [line.split() for line in result.stdout.splitlines()]


def test_no_port_serves_a_call_without_the_runs_token(tmp_path):
    # A call of that one ends Ray 2.60's control service before it looks for a token: an end, but no way in.
    lines = _in_namespace(tmp_path, "^(?!.*RaySyncer/StartSync)")
    calls = [line[2:] for line in lines if line[0] == "grpc"]
    assert {who for kind, who, *_ in lines if kind == "grpc"} >= {"gcs_server", "raylet", "ray::Worker", "ray::Rank"}
    assert not any("served" in codes for codes in calls), calls
    assert sum("UNAUTHENTICATED" in codes for codes in calls) >= 2 * 5
    assert "ray::Rank" not in {who for kind, who, *_ in lines if kind == "tcp"}  # who know no tokens meet on loopback
    answers = [line[2:] for line in lines if line[0] == "http"]
    assert ["401", "/api/jobs/"] in answers
    assert {what for code, what in answers if code != "401"} <= {"metrics"}  # which can be read, and nothing else


def test_the_ways_in_are_found_where_a_cluster_is_open(tmp_path):
    lines = _in_namespace(tmp_path, "CheckAlive$|/GetNodeStats$|/GetCoreWorkerStats$", RAY_AUTH_MODE="disabled")
    served = {who for kind, who, *codes in lines if kind == "grpc" and "served" in codes}
    assert served >= {"gcs_server", "raylet", "ray::Worker", "ray::Rank"}


@pytest.fixture
def no_tokens(monkeypatch):
    for name in access.VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_a_token_is_of_one_run_and_nowhere_else(no_tokens, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    tokens = []
    for _ in range(2):
        with own_token():
            assert os.environ["RAY_AUTH_MODE"] == "token"
            tokens.append(os.environ["RAY_AUTH_TOKEN"])
        assert not any(name in os.environ for name in access.VARIABLES)
    assert len(set(tokens)) == 2 and all(re.fullmatch("[0-9a-f]{64}", token) for token in tokens)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("said", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "mine"}])
def test_what_the_environment_says_of_tokens_stands(no_tokens, monkeypatch, said):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with own_token():
        assert {name: os.environ[name] for name in access.VARIABLES if name in os.environ} == said


def test_a_cluster_that_is_open_is_warned_of(capsys, monkeypatch):
    with started_ray(WorkerSpec()):  # the tests' environment has tokens disabled
        address = ray.get_runtime_context().gcs_address
        assert is_open(address)
        assert not is_open("127.0.0.1:1")
        with monkeypatch.context() as joined:
            joined.setattr(ray, "init", lambda *arguments, **options: None)
            joined.setattr(ray, "shutdown", lambda: None)
            with joined_ray(address):
                pass
        assert re.search(f"Warning: the cluster at '{address}' answers without a token: .*RAY_AUTH_TOKEN",
                         capsys.readouterr().err)
    assert not ray.is_initialized()


def test_a_cluster_with_tokens_is_no_open_one(no_tokens):
    program = ("import sys; sys.path.insert(0, sys.argv[1])\n"
               "import ray\nfrom cluster.campaign.spec import WorkerSpec\n"
               "from cluster.workers.access import is_open\nfrom cluster.workers.connect import started_ray\n"
               "with started_ray(WorkerSpec()): print(is_open(ray.get_runtime_context().gcs_address))")
    told = subprocess.run([sys.executable, "-c", program, str(HOME)], capture_output=True, text=True, timeout=120)
    assert told.stdout == "False\n", told.stderr


def test_no_other_user_can_enter_rays_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(connect, "LONGEST_SOCKET", 300)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    folder = ray_folder().parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    assert ray_folder().parent == folder and stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setattr(connect.os, "getuid", lambda: 12345)
    (tmp_path / "ray-12345").mkdir()
    with pytest.raises(connect.InputError, match="has a 'ray-12345' of another user in it"):
        ray_folder()
