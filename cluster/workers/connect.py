"""Ray for this process: a cluster that is there, or one of its own on this machine; and what workers import from."""

from __future__ import annotations

import logging
import os
import site
import socket
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

from cluster.campaign.spec import WorkerSpec
from cluster.workers.version import HOME
from editors.core.errors import InputError

LOCAL_OBJECT_STORE = 128 << 20  # bytes; a task on its way to a worker is some hundred KB
CONNECT_TIMEOUT = 10.0  # seconds; Ray itself tries for many minutes
LONGEST_SOCKET = 107  # bytes that a socket's path can have on Linux
SOCKET = "session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"  # the longest in Ray's folder


def start_ray(spec: WorkerSpec) -> None:
    """Starts a Ray on this machine that has room for these workers, and ends with this process.

    Raises `InputError` where it cannot be started, or has no folder for its files.
    """
    folder = ray_folder()
    cpus = max(os.cpu_count() or 1, spec.cpus * spec.devices * (spec.count or 1))
    try:
        ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=LOCAL_OBJECT_STORE,
                 log_to_driver=False, logging_level=logging.ERROR, job_config=OwnCode(), _temp_dir=str(folder))
    except Exception as error:  # what goes wrong with its processes, Ray raises as just that
        raise InputError(f"Ray cannot be started on this machine, with its files in '{folder}' (RAY_TMPDIR would name "
                         f"another folder): {' '.join(str(error).split())}") from error


def join_ray(address: str) -> None:
    """Connects to the cluster at this address. Raises `InputError` where that cannot be done."""
    # The server of a `ray://` address makes its own of it, and adds no folder of this machine.
    code: dict[str, Any] = {} if "://" in address else {"job_config": OwnCode()}
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdigit():
            socket.create_connection((host.removeprefix("ray://"), int(port)), CONNECT_TIMEOUT).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **code)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(f"cannot connect to Ray at '{address}': {error}") from error


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
    """The folder of Ray's sockets and logs on this machine: in RAY_TMPDIR, or the first of TMPDIR and /tmp that can be
    used. Raises `InputError` where none can."""
    own = os.environ.get("RAY_TMPDIR")
    places = {"RAY_TMPDIR": own} if own else {"TMPDIR": os.environ.get("TMPDIR"), "the system's folder": "/tmp"}
    reasons = []
    for name, place in places.items():
        if place:
            folder = Path(place).absolute() / "ray"
            if (reason := _unusable(folder)) is None:
                return folder
            reasons.append(f"{name}, '{place}', {reason}")
    raise InputError(f"no folder for Ray's sockets and logs: {'; '.join(reasons)}. Set RAY_TMPDIR to a folder that can "
                     f"be written to and whose path has {_room()} bytes at most, as /tmp")


def _unusable(folder: Path) -> str | None:
    """Why Ray cannot use this folder, if so."""
    if len(os.fsencode(folder.parent)) > _room():
        return f"is too long a path for sockets in it: {len(os.fsencode(folder.parent))} bytes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"cannot be written to: {error.strerror}"
    return None


def _room() -> int:
    """How many bytes the path of the folder that Ray's folder is in can have."""
    return LONGEST_SOCKET - len(f"/ray/{SOCKET}")
