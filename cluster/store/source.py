"""A campaign as one of several stores has it, for those who hold stores together or against each other."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from cluster.store.errors import Damaged
from cluster.store.records import CampaignRecord, Standing, TaskRecord
from cluster.store.store import Store


class Source(NamedTuple):
    """A campaign in the store that is called by this letter: its rows, which of its tasks are done, and what of it is
    damaged."""

    letter: str
    store: Store
    record: CampaignRecord
    rows: pa.Table
    standing: Standing
    damaged: tuple[Damaged, ...]

    @classmethod
    def read(cls, letter: str, store: Store, record: CampaignRecord) -> Source:
        damaged: list[Damaged] = []
        rows = store.rows(record.tasks, damaged)
        # Asked after reading, which finds what is damaged.
        return cls(letter, store, record, rows, store.standing(record), tuple(damaged))

    @property
    def tasks(self) -> dict[str, TaskRecord]:
        return {task.id: task for task in self.record.tasks}

    @property
    def undone(self) -> set[str]:
        return self.tasks.keys() - self.standing.done
