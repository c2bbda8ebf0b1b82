"""What has to be known of a device for times on it to mean anything: which it is, who else uses it, how fast it is."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from editors.core.errors import InputError, quoted
from evaluators.metering.instruments import nvml_handle

GIB = 2**30
FREE = GIB  # bytes in use of a device that is this process's alone: its own context
BUSY = 0.25  # of a machine's cores, by the load of the last minute beside this process, beyond which a note is made
HARMLESS = 0x1 | 0x2  # NVML's reasons for a lower clock: nothing to do; the clock that was asked for


def device_name(device: str) -> str:
    """A device as it is called in provenance; of a CPU, what its sums hang on."""
    return (torch.cuda.get_device_name(device) if device.startswith("cuda")
            else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}")


def check_alone(device: str, wanted: str | None = None) -> list[str]:
    """Notes on who else uses a device. Raises `InputError` where a GPU is used by others, or is not the `wanted` one by
    any part of its name. Of a CPU the load is all there is to tell."""
    if wanted is not None and wanted.lower() not in device_name(device).lower():
        raise InputError(f"costs are to be measured on {quoted(wanted)}, and this worker has '{device_name(device)}'; "
                         "change the protocol's 'device', or take such a worker")
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        if total - free >= FREE:
            raise InputError(f"costs are measured on a device that nothing else uses, and of '{device_name(device)}' "
                             f"{(total - free) / GIB:.1f} GiB are in use; end what uses it and run the campaign again")
        return []
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return [f"the machine was busy as costs were measured: a load of {load:.1f} on {cores} cores"] if (
        load > 1 + BUSY * cores) else []


def state(device: str) -> dict[str, Any]:
    """Clock, temperature and reasons for a lower clock than could be; empty where NVML does not tell."""
    if not device.startswith("cuda"):
        return {}
    handle = nvml_handle(str(torch.cuda.get_device_properties(device).uuid))
    if handle is None:
        return {}
    import pynvml

    try:
        return {"clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
                "celsius": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
                "slowed_by": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)}
    except pynvml.NVMLError:
        return {}


def slowed(*states: dict[str, Any]) -> list[str]:
    """A note where a device ran slower than it could, by heat or by a limit of its power."""
    reasons = 0
    for each in states:
        reasons |= int(each.get("slowed_by", 0)) & ~HARMLESS
    return [f"the device ran at a lower clock as costs were measured (NVML's reasons {reasons:#x})"] if reasons else []
