"""How Ray lost a worker, or was lost itself, in the words of whoever runs a campaign."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from editors.core.errors import EditFleetError
from editors.core.places import scrubbed
from editors.core.printable import shortened

if TYPE_CHECKING:
    from ray.exceptions import RayError

LONGEST = 400  # characters of a reason

# In Ray's own words, which go on for a thousand characters: "Memory on the node (IP: 10.0.0.7, ID: ...) was 30.1GB
# used / 31.4GB limit (0.958)".
_USED = re.compile(r"Memory on the node \(IP: ([^,)]+).*?\) was (\S+) used / (\S+) limit")
# "... its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a
# connection error code 2. End of file. Some common causes include: ..."
_DIED = re.compile(r"Worker exit type: \S+ Worker exit detail: (.*?)\.?(?: (?:Some common|There are some) .*)?$")
_DEAD = "The actor died unexpectedly before finishing this task."
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ACTOR = re.compile(r"^\t\w+: .*\n", re.MULTILINE)  # class, ids and namespace, a line each
# The innermost line of the last traceback, and the error.
_RAISED = re.compile(r'[\s\S]*\n +File "(?P<path>[^"]+)", line (?P<line>\d+).*\n(?:    .*\n)*(?P<error>\S[\s\S]*)')


class Loss(NamedTuple):
    """How a worker was lost: why, in one line; and whether to memory that did not suffice, or together with its node
    (or the way there)."""

    reason: str
    out_of_memory: bool = False
    with_node: bool = False


class ClusterLost(EditFleetError):
    """The Ray that a campaign runs on is gone; no task is to blame. The message says what to do (exit code 1)."""


class GangLost(Exception):
    """A gang that has come apart: its ranks are gone, and the task has to be run by another."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss)
        self.loss = loss

    def __str__(self) -> str:
        return self.loss.reason


def loss_of(error: RayError, with_node: bool = False) -> Loss:
    """What an error of Ray's says of an actor, whose node is gone as well or not, or of the ranks that it led."""
    import ray

    if isinstance(cause := getattr(error, "cause", None), GangLost):
        return cause.loss
    reason = shortened(" ".join(_reason(error).split()), LONGEST)
    away = isinstance(error, ray.exceptions.ActorUnavailableError)
    return Loss(reason, isinstance(error, ray.exceptions.OutOfMemoryError), away or with_node)


def _reason(error: RayError) -> str:
    import ray

    text = scrubbed(_COLOURS.sub("", str(error))).strip()
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return _killed_for_memory(text)
    if raised := _RAISED.match(text):
        return f"{raised['error']} ({raised['path']}, line {raised['line']})"
    text = " ".join(_ACTOR.sub("", text).removeprefix(_DEAD).split())
    if died := _DIED.search(text):
        return (f"its process ended unexpectedly ({died[1]}): it crashed, or was killed, as the kernel does where "
                "memory runs out (`dmesg` tells)")
    return text


def _killed_for_memory(text: str) -> str:
    found = _USED.search(text)
    node, told = (f"node {found[1]}", f", {found[2]} used of {found[3]}") if found else ("its node", "")
    return (f"killed by Ray's memory monitor: {node} ran low on memory{told}; run fewer workers there (`--workers`, or "
            "more `cpus` for each), or free memory")
