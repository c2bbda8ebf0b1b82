"""What earlier runs of a campaign have scored, read while this one goes on: a start does not wait for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cluster.exporter.tally import Tally
from cluster.log import log_event
from cluster.plan.tasks import Task
from cluster.store.errors import StoreError
from cluster.store.store import Store
from evaluators.metering.account import Account

AT_ONCE = 200  # results that are read before it is asked again whether to go on
PATIENCE = 5.0  # seconds that the end waits for these


@contextmanager
def catching_up(tally: Tally, store: Store, done: Sequence[Task]) -> Iterator[None]:
    """Tells the tally during the block what tasks have scored that are done already. A store that fails at it is logged
    and no more: means lack what it did not give."""
    over = threading.Event()
    keys = [task.key for task in done if task.output == "rows"]

    def read() -> None:
        for start in range(0, len(keys), AT_ONCE):
            if over.is_set():
                return
            try:
                found = store.provenances(keys[start: start + AT_ONCE], _scored)
            except StoreError as error:
                log_event("means-incomplete", level=logging.WARNING, reason=str(error))
                return
            for task, scored in found:
                tally.scored_before(task, scored)

    reader = threading.Thread(target=read, name="scored-before", daemon=True)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join(PATIENCE)


def _scored(about: Mapping[str, Any]) -> tuple[str, Mapping[str, tuple[float, int]]]:
    return about["task"], Account.model_validate(about).scored
