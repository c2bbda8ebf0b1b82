"""Whether the Ray that this process uses is still there.

Ray's own calls do not tell: they block while its control service (GCS) does not answer, and after a minute end the
process without a word.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from typing import Any, TypeVar

import ray

from cluster.workers.losses import ClusterLost

ANSWER = 2.0  # seconds to wait for one before other things are done
SILENCE = 20.0  # seconds without an answer after which a control service is gone; one that is restarted takes fewer
CURE = "What is done is kept; run the same command again to go on"

Nodes = list[dict[str, Any]]
Answer = TypeVar("Answer")


class Control:
    """Asks the control service of the cluster that this process is connected to for the nodes."""

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        self._node, self._address = context.get_node_id(), context.gcs_address
        #: What was asked and is not answered, and since when.
        self._answer: Future[Nodes] | None = None
        self._since = 0.0

    def nodes(self) -> Nodes | None:
        """The nodes that are alive; None while nobody can tell.

        Raises `ClusterLost` where nobody will, or this process has been cut off from them.
        """
        if self._answer is None:
            self._answer, self._since = _asked(ray.nodes), time.monotonic()
        try:
            nodes = self._answer.result(ANSWER)
        except TimeoutError:
            if time.monotonic() - self._since <= SILENCE:
                return None
            raise ClusterLost(f"Ray's control service at {self._address} has not answered for {SILENCE:.0f} s: it has "
                              f"ended, or the way there is cut. {CURE}") from None
        self._answer = None
        if any(node["NodeID"] == self._node and not node["Alive"] for node in nodes):
            raise ClusterLost("the node of Ray's that this command is connected to has died, and with it all that the "
                              f"command started. {CURE}")
        return [node for node in nodes if node["Alive"]]


def patiently(call: Callable[[], Answer]) -> Answer | None:
    """What a call of Ray's returns; None where its control service does not answer soon. It may answer later."""
    try:
        return _asked(call).result(ANSWER)
    except TimeoutError:
        return None


def alive() -> Nodes:
    """The nodes that are alive; blocks while nobody can tell."""
    return [node for node in ray.nodes() if node["Alive"]]


def is_gone(node: str | None, nodes: Nodes | None) -> bool:
    """Whether a node is none of these; not where one or the others are not known."""
    return node is not None and nodes is not None and all(other["NodeID"] != node for other in nodes)


def _asked(call: Callable[[], Answer]) -> Future[Answer]:
    """What a call returns, by a thread that nothing waits for: it may never come back."""
    answer: Future[Answer] = Future()

    def ask() -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name="ray-asked", daemon=True).start()
    return answer
