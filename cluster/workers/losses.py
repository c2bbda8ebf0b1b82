"""Why Ray says that a worker was lost, in the words of whoever runs a campaign."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.exceptions import RayError

# In Ray's own words, which go on for a thousand characters: "Memory on the node (IP: 10.0.0.7, ID: ...) was 30.1GB
# used / 31.4GB limit (0.958)".
_USED = re.compile(r"Memory on the node \(IP: ([^,)]+).*?\) was (\S+) used / (\S+) limit")


def why_lost(error: RayError) -> str:
    """What an error of Ray's comes down to. Of a worker that was killed for memory: where, and how much was used of how
    much."""
    import ray

    text = str(error).strip()
    if not isinstance(error, ray.exceptions.OutOfMemoryError):
        return text
    found = _USED.search(text)
    node, told = (f"node {found[1]}", f", {found[2]} used of {found[3]}") if found else ("its node", "")
    return (f"killed by Ray's memory monitor: {node} ran low on memory{told}; run fewer workers there (`--workers`, or "
            "more `cpus` for each), or free memory")
