"""What time, memory and energy are read from: a GPU's own counters, or the kernel's of this process."""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch

from evaluators.metering.spent import Memory

STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Instruments(Protocol):
    """Of one device."""

    def now(self) -> float:
        """Seconds of a monotonic clock, once the device has done all it was given."""

    def reset(self) -> Memory:
        """Has `peak` count from here on; what is in use now."""

    def peak(self, before: Memory) -> Memory:
        """The most that was in use since `reset`, which gave `before`."""

    def joules(self) -> float | None:
        """What the device has used since it was last started; None where it does not tell."""

    def tidy(self) -> None:
        """Gives back what is not used any more, so that a peak is of what comes next."""


class CpuInstruments:
    """Of a process on CPUs. Its peak is the resident set's, which Linux alone can begin anew."""

    def now(self) -> float:
        return time.perf_counter()

    def reset(self) -> Memory:
        reset_resident_peak()
        return Memory()

    def peak(self, before: Memory) -> Memory:
        return resident()

    def joules(self) -> float | None:
        return None

    def tidy(self) -> None:
        gc.collect()


class CudaInstruments:
    """Of a CUDA device, and of this process beside it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> float:
        torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def reset(self) -> Memory:
        reset_resident_peak()
        torch.cuda.reset_peak_memory_stats(self._device)
        return Memory(allocated=torch.cuda.memory_allocated(self._device), device=self._used())

    def peak(self, before: Memory) -> Memory:
        reserved, used = torch.cuda.max_memory_reserved(self._device), self._used()
        # The device tells only what is used just now: of the peak between, the allocator knows its own part.
        others = used - torch.cuda.memory_reserved(self._device)
        return resident().model_copy(update={
            "allocated": torch.cuda.max_memory_allocated(self._device), "allocated_before": before.allocated,
            "reserved": reserved, "device": max(before.device or 0, used, others + reserved)})

    def joules(self) -> float | None:
        handle = nvml_handle(str(torch.cuda.get_device_properties(self._device).uuid))
        if handle is None:
            return None
        import pynvml

        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000  # which is in millijoules
        except pynvml.NVMLError:  # before Volta there is no such counter
            return None

    def tidy(self) -> None:
        gc.collect()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()

    def _used(self) -> int:
        free, total = torch.cuda.mem_get_info(self._device)
        return int(total - free)


def instruments(device: torch.device) -> Instruments:
    """Those of a device."""
    return CudaInstruments(device) if device.type == "cuda" else CpuInstruments()


def reset_resident_peak() -> None:
    """Has the kernel count this process's largest resident set (VmHWM) from here on, where it does that."""
    with suppress(OSError):
        PEAK_RESET.write_text("5", encoding="ascii")


def resident() -> Memory:
    """This process's largest resident set since the last reset, and what of it is no file's now; None each where the
    kernel does not tell, or cannot begin anew."""
    if not _peak_can_be_reset():
        return Memory()
    found = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines() if ":" in line)
    return Memory(**{name: int(found[field].split()[0]) * 1024  # "   1234 kB"
                     for name, field in (("rss", "VmHWM"), ("rss_anonymous", "RssAnon")) if field in found})


@cache
def _peak_can_be_reset() -> bool:
    try:
        PEAK_RESET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return STATUS.exists()


@cache
def nvml_handle(uuid: str) -> Any:
    """NVML's handle of a device; None where there is no NVML, or it does not know the device."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except Exception:  # without the package or the library; or the device is a part of one, which has other names there
        return None
