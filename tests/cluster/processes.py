"""Processes of this machine, as tests look for them."""

from __future__ import annotations

from pathlib import Path


def titled(text):
    """Ids of the processes whose title has this in it, from the lowest."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            title = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in title:
            found.append(int(entry.name))
    return sorted(found)
