"""Devices that a campaign could be run on: `8xV100-32GB` is eight of them. What they do in a second is reckoned: a
share of what their makers say they can do at most."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from editors.core.errors import InputError, quoted, unknown

WRITTEN = re.compile(r"([1-9][0-9]{0,4})\s*[x*]\s*([A-Za-z][A-Za-z0-9]*)(?:-([0-9]{1,4})(?:GB|GiB)?)?", re.IGNORECASE)
HALF_SHARE = 1 / 6  # of the tensor units' peak: edits are small batches. As `costs` has it for a V100; not measured
SINGLE_SHARE = 1 / 2  # of the peak in float32, which is easier to reach. Not measured
TERA = 1e12


@dataclass(frozen=True)
class Device:
    """What one has: `memory` in GiB, and the floating point operations a second, in 10¹², that its maker gives for
    dense matrices in float32 and in the half precisions; None where it has no units for bfloat16."""

    name: str
    memory: float
    float32: float
    float16: float
    bfloat16: float | None

    def rate(self, dtype: str) -> float:
        """Floating point operations a second that forecasts assume. Raises `InputError` for a dtype it does not have.
        """
        peak: float | None = getattr(self, dtype)
        if peak is None:
            raise InputError(f"a {self.name} does not compute in {dtype}; take 'dtype: float16' or 'dtype: float32'")
        return peak * TERA * (SINGLE_SHARE if dtype == "float32" else HALF_SHARE)


@dataclass(frozen=True)
class Devices:
    """So many of one kind."""

    count: int
    device: Device

    def __str__(self) -> str:
        return f"{self.count}x{self.device.name}"


# Of the makers' data sheets, without sparsity; float32 without TF32, which PyTorch leaves off.
KNOWN: Mapping[str, Device] = {device.name: device for device in (
    Device("V100-16GB", 16, 15.7, 125, None),  # NVIDIA V100 data sheet (2020), SXM2
    Device("V100-32GB", 32, 15.7, 125, None),  # the same
    Device("A100-40GB", 40, 19.5, 312, 312),  # NVIDIA A100 data sheet (2021), SXM
    Device("A100-80GB", 80, 19.5, 312, 312),  # the same
    Device("L40S-48GB", 48, 91.6, 362, 362),  # NVIDIA L40S data sheet (2023)
    Device("H100-80GB", 80, 67, 989, 989),  # NVIDIA H100 data sheet (2023), SXM; 1,979 with sparsity
    Device("H200-141GB", 141, 67, 989, 989),  # NVIDIA H200 data sheet (2024), SXM
)}


def parse_devices(text: str) -> Devices:
    """From COUNTxNAME or COUNTxNAME-MEMORYGB. Raises `InputError` for what is not written so, and for a device that is
    not known."""
    told = f"--devices {quoted(text)}"
    if (found := WRITTEN.fullmatch(text.strip())) is None:
        raise InputError(f"{told}: expected COUNTxNAME or COUNTxNAME-MEMORYGB, such as 8xV100-32GB or 1xH200")
    count, name, memory = int(found[1]), found[2].upper(), found[3]
    sizes = [device for device in KNOWN.values() if device.name.rpartition("-")[0] == name]
    if not sizes:
        raise InputError(f"{told}: {unknown('device', found[2], KNOWN)}")
    if memory is not None:
        sizes = [device for device in sizes if device.memory == int(memory)]
    if not sizes:
        raise InputError(f"{told}: {unknown('device', f'{name}-{memory}GB', KNOWN)}")
    if len(sizes) > 1:
        raise InputError(f"{told}: which of them? {' or '.join(f'{count}x{device.name}' for device in sizes)}")
    return Devices(count, sizes[0])
