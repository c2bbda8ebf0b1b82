"""A ledger of the memory that tensors take: what is there, what was at most, and an end to it."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside, for as long as they are there: `now`, and at `most`. Where they
    would be more than `limit`, memory is out, as on a device of that size."""

    def __init__(self, limit: float = float("inf")) -> None:
        super().__init__()
        self.limit, self.now, self.most = limit, 0, 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self._note(leaf.untyped_storage(), before)
        return made

    def _note(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        if id(storage) in before or id(storage) in self._known:  # a view, or changed in place
            return
        number, size = id(storage), storage.nbytes()

        def gone(_: object) -> None:
            self.now -= size
            del self._known[number]

        self._known[number] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)
        if self.now > self.limit:
            raise torch.OutOfMemoryError(f"{self.now} bytes are more than {self.limit}")
