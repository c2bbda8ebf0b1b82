"""What an unedited model knows: the fact that a case edits, asked by the edit's own prompt, and what counts as known.

    exact   every token of the true answer is the most probable one behind those before it: greedy decoding gives the
            answer (teacher forcing and greedy decoding read the same as long as every token is right)
    topN    the answer's first token is among the N most probable behind the prompt

Causal tracing is done on facts that the model predicts (Meng et al. 2022, section 2.1), and Yao et al. 2023 (appendix
B) count a fact as known where its answer begins among the 10 most probable tokens. Reading answers loads no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import pyarrow as pa

from evaluators.cases import Case, Skipped

MOST = 1000
PATTERN = r"^(exact|top([1-9][0-9]{0,2}|1000))$"

TABLE = pa.schema([("case_id", pa.string()), ("exact", pa.bool_()), ("rank", pa.int32()), ("unusable", pa.string())])


class Recall(NamedTuple):
    """How a model answers the prompt of a case before any edit: whether greedy decoding gives the true answer, and how
    many tokens are more probable than its first. Where the answer has several names, by the one that it does best."""

    case_id: str
    exact: bool
    rank: int


@dataclass(frozen=True)
class Criterion:
    """When a fact is known: its answer begins among the `top` most probable tokens, or without one is given exactly."""

    top: int | None = None

    @classmethod
    def parse(cls, text: object) -> Self:
        """Raises `ValueError` for what is neither 'exact' nor 'topN'."""
        if not isinstance(text, str) or (found := re.fullmatch(PATTERN, text)) is None:
            raise ValueError(f"{text!r} says nothing of what is known: write 'exact', where the model must give the "
                             f"true answer, or 'topN' with N from 1 to {MOST}, such as 'top10', where the answer must "
                             "begin among its N most probable tokens")
        return cls(int(found[2]) if found[2] else None)

    def holds(self, recall: Recall) -> bool:
        return recall.exact if self.top is None else recall.rank < self.top


def names_of(case: Case) -> tuple[str, ...]:
    """The true answer of a case by all its names, or none where the data set does not tell it."""
    return () if case.target_true is None else (case.target_true, *case.also_true)


def to_table(recalls: Iterable[Recall], unusable: Iterable[Skipped]) -> pa.Table:
    """One row per case that was asked, or could not be asked; `from_table` gives both back."""
    rows = [*({**recall._asdict(), "unusable": None} for recall in recalls),
            *({"case_id": case.case_id, "exact": False, "rank": None, "unusable": case.reason} for case in unusable)]
    return pa.Table.from_pylist(rows, schema=TABLE)


def from_table(table: pa.Table) -> tuple[Sequence[Recall], Sequence[Skipped]]:
    """What a table made by `to_table` holds."""
    recalls, unusable = list[Recall](), list[Skipped]()
    for row in table.to_pylist():
        if row["unusable"] is None:
            recalls.append(Recall(row["case_id"], row["exact"], row["rank"]))
        else:
            unusable.append(Skipped(case_id=row["case_id"], reason=row["unusable"]))
    return recalls, unusable
