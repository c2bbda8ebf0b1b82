"""What a store keeps: the names of results, and the records of campaigns, tasks and failures."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from evaluators.cases import Skipped

ROW_SCHEMA = pa.schema([("editor", pa.string()), ("model", pa.string()), ("dataset", pa.string()),
                        ("protocol", pa.string()), ("edits", pa.int64()), ("metric", pa.string()),
                        ("value", pa.float64()), ("case_id", pa.string()), ("subject", pa.string()),
                        ("task", pa.string()), ("seed", pa.int64()), ("order", pa.int64()),
                        ("texts", pa.list_(pa.string()))])

Output = Literal["rows", "baselines", "artefacts"]


class ResultKey(NamedTuple):
    """Names one task's result."""

    output: Output
    id: str


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class TaskRecord(_Record):
    """A planned task: `title` is for people, `edits` how many edits it makes; it `absorbs` the results of these tasks,
    which are no longer there, and count as done, once its own is."""

    id: str
    kind: str
    output: Output
    title: str
    edits: int
    absorbs: tuple[str, ...] = ()

    @property
    def key(self) -> ResultKey:
        return ResultKey(self.output, self.id)


def with_absorbed(there: Collection[str], tasks: Iterable[TaskRecord]) -> frozenset[str]:
    """Ids of the tasks that are done: their results are `there`, or in one that is."""
    return frozenset(there).union(*(task.absorbs for task in tasks if task.id in there))


class DatasetRecord(_Record):
    name: str
    cases: int
    skipped: tuple[Skipped, ...]


class CampaignRecord(_Record):
    """A plan as the store keeps it; `started` is when the campaign was last run, `notes` what people should know,
    `sizes` how tasks were cut by the table of costs, of version `costs`."""

    name: str
    digest: str
    started: datetime
    datasets: tuple[DatasetRecord, ...]
    tasks: tuple[TaskRecord, ...]
    notes: tuple[str, ...] = ()
    sizes: Mapping[str, int] = Field(default_factory=dict)
    costs: int = 0


def last_line(reason: str) -> str:
    """What a traceback, or any other reason, comes down to."""
    return (reason.strip() or "no reason given").splitlines()[-1]


class Failure(_Record):
    """Why a task was set aside: the reason in full, and its last line."""

    task: str
    title: str
    reason: str

    @property
    def summary(self) -> str:
        return last_line(self.reason)


@dataclass(frozen=True)
class Standing:
    """Which tasks of a campaign are done, and which of the others were set aside when last tried."""

    done: frozenset[str]
    failures: tuple[Failure, ...]
