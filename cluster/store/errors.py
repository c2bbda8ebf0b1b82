"""The errors of a store.

    EditFleetError         (`editors.core.errors`)
    ├── StoreError         the store itself fails: full, read-only, deleted, out of reach (exit code 1)
    │   └── LeaseLost      another driver has taken the store over
    └── Damaged            one result is missing or damaged, and has to be made again
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editors.core.errors import EditFleetError

if TYPE_CHECKING:
    from cluster.store.records import ResultKey


class StoreError(EditFleetError):
    """A store cannot be used as it is. The message names the store, what is wrong with it and the cure."""


class LeaseLost(StoreError):
    """Another driver has taken the store over; this one must stop."""


class Damaged(EditFleetError):
    """The result of the task `key` is missing or damaged; made again, all is well."""

    def __init__(self, key: ResultKey, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason

    def __str__(self) -> str:
        return f"{self.key.output}/{self.key.id} cannot be used: {self.reason}"
