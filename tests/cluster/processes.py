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


def marked(mark, value):
    """Ids of the processes that were started with a variable of this value in their environment."""
    wanted = f"{mark}={value}".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
        except OSError:
            continue
    return found
