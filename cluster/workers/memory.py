"""What workers use of memory: they tell beside their tasks, and nobody waits for it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from heapq import nsmallest
from pathlib import Path
from typing import Any

import ray
import torch

from cluster.exporter.gauges import WorkerMemory
from editors.core.memory import main_memory

ASKED_EVERY = 15.0  # seconds
AT_ONCE = 8  # workers that are asked


def memory_used() -> WorkerMemory:
    """By this process, and of its device, if it has begun to use one."""
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return WorkerMemory(resident, main_memory()[0])
    free, total = torch.cuda.mem_get_info()
    return WorkerMemory(resident, total, total - free, torch.cuda.memory_allocated())


class MemoryWatch:
    """What workers told last, with each of their tasks. Those that are long at one are asked, a few at a time, as
    asking a thousand would take more than all else that a driver does. Who does not answer is not waited for."""

    def __init__(self) -> None:
        self._known: dict[int, WorkerMemory] = {}
        #: When each of these told that.
        self._heard: dict[int, float] = {}
        #: Ray's references to answers that are not there yet, at most one per worker.
        self._asked: dict[Any, int] = {}
        self._due = 0.0

    def told(self, worker: int, memory: WorkerMemory) -> None:
        self._known[worker], self._heard[worker] = memory, time.monotonic()

    def latest(self, actors: Mapping[int, Any]) -> Mapping[int, WorkerMemory]:
        """What these workers told last, of those that have told anything."""
        if self._asked:
            for ref in ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)[0]:
                worker = self._asked.pop(ref)
                with suppress(ray.exceptions.RayError):  # it is lost, as others will say
                    self.told(worker, ray.get(ref))
        for gone in self._known.keys() - actors.keys():
            del self._known[gone], self._heard[gone]
        self._asked = {ref: worker for ref, worker in self._asked.items() if worker in actors}
        if (now := time.monotonic()) >= self._due:
            self._due = now + ASKED_EVERY
            for worker in self._silent(actors, now):
                self._asked[actors[worker].memory.remote()] = worker
        return dict(self._known)

    def _silent(self, actors: Mapping[int, Any], now: float) -> list[int]:
        """Workers that have told nothing for long, those first that have for longest, and are not being asked."""
        heard, waiting = self._heard, set(self._asked.values())
        silent = (worker for worker in actors
                  if worker not in waiting and heard.get(worker, -ASKED_EVERY) <= now - ASKED_EVERY)
        return nsmallest(AT_ONCE - len(waiting), silent, key=lambda worker: heard.get(worker, 0.0))
