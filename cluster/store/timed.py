"""Files of a store whose reads, writes and listings are timed: it is here that a driver learns how its store does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from cluster.store.errors import StoreError
from cluster.store.files import Files

Operation = Literal["read", "write", "list", "lease"]
Took = Callable[[Operation, float, bool], None]  # is told an operation, its seconds, and whether the store failed
T = TypeVar("T")

_OPERATIONS: dict[str, Operation] = {"read": "read", "size": "read", "exists": "read", "sizes": "list",
                                     "entries": "list", "write": "write", "remove": "write", "move": "write"}


@contextmanager
def timing(operation: Operation, took: Took) -> Iterator[None]:
    """Times the block. That a file is not there is no failure of the store's."""
    began, failed = time.perf_counter(), False
    try:
        yield
    except StoreError:
        failed = True
        raise
    finally:
        took(operation, time.perf_counter() - began, failed)


class _Timed:
    def __init__(self, files: Files, took: Took) -> None:
        self._files, self._took = files, took

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._files, name)
        if name not in _OPERATIONS:
            return found

        @wraps(found)
        def timed(*arguments: Any) -> Any:
            with timing(_OPERATIONS[name], self._took):
                return found(*arguments)

        setattr(self, name, timed)
        return timed


def timed(files: Files, took: Took) -> Files:
    """The same files; `took` may be called by any thread."""
    return cast(Files, _Timed(files, took))
