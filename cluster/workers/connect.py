"""Ray for this process: a cluster that is there, or one of its own on this machine; and what workers import from."""

from __future__ import annotations

import logging
import os
import site
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

from cluster.campaign.spec import WorkerSpec
from cluster.workers.access import is_open, own_token
from cluster.workers.version import HOME
from editors.core.errors import InputError
from editors.core.places import scrubbed, shown

LOCAL_OBJECT_STORE = 128 << 20  # bytes; a task on its way to a worker is some hundred KB
CONNECT_TIMEOUT = 10.0  # seconds; Ray itself tries for many minutes
LONGEST_SOCKET = 107  # bytes that a socket's path can have on Linux
OPEN = ("answers without a token: whoever reaches it can run code on it. Start it with RAY_AUTH_MODE=token and a "
        "RAY_AUTH_TOKEN in its environment, and set the same here")
SOCKET = "session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"  # the longest in Ray's folder


@contextmanager
def started_ray(spec: WorkerSpec) -> Iterator[None]:
    """A Ray on this machine that has room for these workers, answers nobody else, and ends with the block.

    Raises `InputError` where it cannot be started, or has no folder for its files.
    """
    folder = ray_folder()
    cpus = max(os.cpu_count() or 1, spec.cpus * spec.devices * (spec.count or 1))
    with own_token():
        try:
            ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=LOCAL_OBJECT_STORE,
                     log_to_driver=False, logging_level=logging.ERROR, job_config=OwnCode(), _temp_dir=str(folder))
        except Exception as error:  # what goes wrong with its processes, Ray raises as just that
            raise InputError(f"Ray cannot be started on this machine, with its files in '{folder}' (RAY_TMPDIR would "
                             f"name another folder): {' '.join(str(error).split())}") from error
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def joined_ray(address: str) -> Iterator[None]:
    """The cluster at this address, to which this process is connected until the block ends.

    Raises `InputError` where it cannot be reached. Warns, on standard error, where it answers everybody.
    """
    # The server of a `ray://` address makes its own of it, and adds no folder of this machine.
    code: dict[str, Any] = {} if "://" in address else {"job_config": OwnCode()}
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdigit():
            socket.create_connection((host.removeprefix("ray://"), int(port)), CONNECT_TIMEOUT).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **code)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(f"cannot connect to Ray at '{shown(address)}': {scrubbed(str(error), address)}") from error
    try:
        if is_open(ray.get_runtime_context().gcs_address):
            print(f"Warning: the cluster at '{shown(address)}' {OPEN}", file=sys.stderr)
        yield
    finally:
        ray.shutdown()


class OwnCode(JobConfig):
    """Has workers import this EditFleet, and nothing from the folder that the command was called in.

    Ray would put that folder first, and the script's, when it is about to tell the cluster of the job: a
    `statistics.py` or an `editors/` there would be imported for what workers mean.
    """

    def _serialize(self) -> str:
        self._py_driver_sys_path = code_path()
        return super()._serialize()


def code_path() -> list[str]:
    """The folders that workers need besides Python's own to find the code that runs here: none where it is installed
    among the packages, which must not come before Python's own modules."""
    packages = {Path(folder).resolve() for folder in (*site.getsitepackages(), site.getusersitepackages())}
    return [] if HOME in packages else [str(HOME)]


def ray_folder() -> Path:
    """The folder of Ray's sockets and logs on this machine, in one that no other user can enter: in RAY_TMPDIR, or the
    first of TMPDIR and /tmp that can be used. Raises `InputError` where none can."""
    own = os.environ.get("RAY_TMPDIR")
    places = {"RAY_TMPDIR": own} if own else {"TMPDIR": os.environ.get("TMPDIR"), "the system's folder": "/tmp"}
    reasons = []
    for name, place in places.items():
        if place:
            folder = Path(place).absolute() / _own()
            if (reason := _unusable(folder)) is None:
                return folder / "ray"  # which Ray itself opens to everybody
            reasons.append(f"{name}, '{place}', {reason}")
    raise InputError(f"no folder for Ray's sockets and logs: {'; '.join(reasons)}. Set RAY_TMPDIR to a folder that can "
                     f"be written to and whose path has {_room()} bytes at most, as /tmp")


def _unusable(folder: Path) -> str | None:
    """Why Ray cannot use this folder, if so."""
    if len(os.fsencode(folder.parent)) > _room():
        return f"is too long a path for sockets in it: {len(os.fsencode(folder.parent))} bytes"
    if not str(folder).isascii():
        return "has letters beyond ASCII, which Ray does not take in a path"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return f"has a '{folder.name}' of another user in it"
        folder.chmod(0o700)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"cannot be written to: {error.strerror}"
    return None


def _own() -> str:
    return f"ray-{os.getuid()}"


def _room() -> int:
    """How many bytes the path of the folder that this user's folder is in can have."""
    return LONGEST_SOCKET - len(f"/{_own()}/ray/{SOCKET}")
