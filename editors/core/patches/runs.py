"""Rows of a batch as runs that carry one and the same patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

NONE = -1


class Run(NamedTuple):
    """Rows `start` to `stop` carry the term of that number, or none (-1)."""

    term: int
    start: int
    stop: int


class Runs:
    """Which of some terms each row of a batch carries, as it is known before a pass: nothing has to be asked of the
    device for it."""

    def __init__(self, terms: Sequence[int]) -> None:
        """Row i carries the term of number `terms[i]`, or none (-1)."""
        self.terms = terms
        self.runs: list[Run] = []
        for term, rows in groupby(terms):
            start = self.runs[-1].stop if self.runs else 0
            self.runs.append(Run(term, start, start + sum(1 for _ in rows)))
        self._touched: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.terms)

    def join(self, part: Callable[[Run], Tensor]) -> Tensor:
        """What `part` makes of each run's rows, one behind the other; zeros for rows without a term."""
        parts = [None if run.term == NONE else part(run) for run in self.runs]
        some = next(each for each in parts if each is not None)
        return torch.cat([some.new_zeros(run.stop - run.start, *some.shape[1:]) if each is None else each
                          for run, each in zip(self.runs, parts, strict=True)])

    def gathered(self, make: Callable[[Tensor, Tensor], Tensor], device: torch.device) -> Tensor:
        """What `make` makes of the rows that carry a term, given which rows and which terms these are, in its place;
        zeros for the others."""
        if device not in self._touched:
            rows = [row for row, term in enumerate(self.terms) if term != NONE]
            pairs = torch.tensor([rows, [self.terms[row] for row in rows]], device=device)
            self._touched[device] = pairs[0], pairs[1]
        rows_of, terms_of = self._touched[device]
        part = make(rows_of, terms_of)
        if len(rows_of) == len(self):
            return part
        return part.new_zeros(len(self), *part.shape[1:]).index_copy(0, rows_of, part)
