"""Which code this is: workers that run other code than the driver would make other rows under the same ids."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]  # the folder of all rooms
ROOMS = ("editors", "evaluators", "cluster")
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow")


@cache
def code_version() -> str:
    """The packages that results depend on, and 12 hexadecimal digits of all of EditFleet's own code and presets."""
    running = hashlib.sha256()
    files = (path for room in ROOMS for path in (HOME / room).rglob("*.*") if path.suffix in (".py", ".yaml"))
    for path in sorted(files):
        running.update(f"{path.relative_to(HOME)}\n".encode())
        running.update(path.read_bytes())
    packages = " ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"code {running.hexdigest()[:12]}, python {platform.python_version()}, {packages}"
