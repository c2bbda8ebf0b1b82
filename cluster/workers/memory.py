"""What workers use of memory: they tell beside their tasks, and nobody waits for it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import torch

from cluster.exporter.gauges import WorkerMemory

ASKED_EVERY = 15.0  # seconds


def memory_used() -> WorkerMemory:
    """By this process, and of its device, if it has begun to use one."""
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return WorkerMemory(resident, _machines())
    free, total = torch.cuda.mem_get_info()
    return WorkerMemory(resident, total, total - free, torch.cuda.memory_allocated())


def _machines() -> int:
    """Bytes of this machine, or as many of them as its container may have."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # there is no such file, or it says `max`
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total


class MemoryWatch:
    """Asks workers now and then; who does not answer is not waited for."""

    def __init__(self) -> None:
        self._known: dict[int, WorkerMemory] = {}
        #: Ray's references to answers that are not there yet, at most one per worker.
        self._asked: dict[Any, int] = {}
        self._due = 0.0

    def latest(self, actors: Mapping[int, Any]) -> Mapping[int, WorkerMemory]:
        """What these workers told last, of those that have told anything; the same object until that changes."""
        told: dict[int, WorkerMemory] = {}
        if self._asked:
            for ref in ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)[0]:
                worker = self._asked.pop(ref)
                with suppress(ray.exceptions.RayError):  # it is lost, as others will say
                    told[worker] = ray.get(ref)
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + ASKED_EVERY
            waiting = set(self._asked.values())
            for worker, actor in actors.items():
                if worker not in waiting:
                    self._asked[actor.memory.remote()] = worker
        if told or not self._known.keys() <= actors.keys():
            self._known = {worker: at for worker, at in {**self._known, **told}.items() if worker in actors}
        self._asked = {ref: worker for ref, worker in self._asked.items() if worker in actors}
        return self._known
