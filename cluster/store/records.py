"""What a store keeps: the names of results, and the records of campaigns, tasks and failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import pyarrow as pa
from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue, NonNegativeInt, model_validator

from evaluators.cases import Skipped

ROW_SCHEMA = pa.schema([("editor", pa.string()), ("model", pa.string()), ("dataset", pa.string()),
                        ("protocol", pa.string()), ("edits", pa.int64()), ("metric", pa.string()),
                        ("value", pa.float64()), ("case_id", pa.string()), ("subject", pa.string()),
                        ("task", pa.string()), ("settings", pa.string()), ("seed", pa.int64()),
                        ("order", pa.int64()), ("texts", pa.list_(pa.string()))])

_TEXT = pa.dictionary(pa.int32(), pa.string())  # the same again and again
#: What models said, a row to a question: what `evaluators.scoring.said.Answer` tells, behind what rows have, too.
ANSWER_SCHEMA = pa.schema([("editor", _TEXT), ("model", _TEXT), ("dataset", _TEXT), ("protocol", _TEXT),
                           ("edits", pa.int64()), ("seed", pa.int64()), ("order", pa.int64()), ("task", _TEXT),
                           ("settings", _TEXT), ("case_id", _TEXT), ("subject", _TEXT), ("relation", _TEXT),
                           ("question", _TEXT), ("prompt", _TEXT), ("target", _TEXT), ("target_true", _TEXT),
                           ("expected", _TEXT), ("unedited", _TEXT), ("edited", _TEXT), ("unedited_written", _TEXT),
                           ("edited_written", _TEXT), ("right", pa.float64()), ("patch_norm", pa.float64())])

Output = Literal["rows", "baselines", "artefacts", "answers"]  # no task yields answers alone


class ResultKey(NamedTuple):
    """Names one task's result."""

    output: Output
    id: str


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


@dataclass(frozen=True, slots=True)  # of which there may be hundreds of thousands: a model takes five times the memory
class TaskRecord:
    """A planned task: `title` is for people, `edits` how many edits it makes, `needs` the tasks whose results it reads.
    A `temporary` result is removed once all tasks that need it are done."""

    id: str
    kind: str
    output: Output
    title: str
    edits: int
    needs: tuple[str, ...] = ()
    temporary: bool = False

    @property
    def key(self) -> ResultKey:
        return ResultKey(self.output, self.id)


class DatasetRecord(_Record):
    name: str
    cases: int
    skipped: tuple[Skipped, ...]
    digest: str = ""


class KnownRecord(_Record):
    """What became of a data set that is kept to what a model knows, `by` which criterion.

    Of its cases so many were `examined`: those without a true answer (`untold`) and those that this model cannot be
    asked about (`unusable`) are among them. So many are `known`, and the first `kept` of these are the campaign's.
    Where the model was not asked about all of them yet, so many tasks are `missing`, and the counts are as if it knew
    every case; unless they are `left_out`, as asking failed.
    """

    model: str
    dataset: str
    by: str
    examined: int
    known: int
    kept: int
    untold: int = 0
    unusable: tuple[Skipped, ...] = ()
    missing: int = 0
    left_out: bool = False


class SweptEntry(_Record):
    """An entry of a campaign that its `sweep` made: the part it stands in, its name in rows, the entry it varies, and
    what it has in each of the settings that are swept."""

    part: Literal["models", "datasets", "editors"]
    name: str
    varies: str
    settings: dict[str, JsonValue]


class CampaignRecord(_Record):
    """A plan as the store keeps it; `started` is when the campaign was last run, `notes` what people should know,
    `tags` what the campaign calls itself beside its name, and `text` what it was read from, as YAML: empty where the
    version that ran it kept none."""

    name: str
    digest: str
    started: AwareDatetime
    datasets: tuple[DatasetRecord, ...]
    tasks: tuple[TaskRecord, ...]
    notes: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    sweep: tuple[SweptEntry, ...] = ()
    known: tuple[KnownRecord, ...] = ()
    text: str = ""

    @model_validator(mode="after")
    def _has_what_its_tasks_need(self) -> Self:
        if lost := {need for task in self.tasks for need in task.needs} - {task.id for task in self.tasks}:
            raise ValueError(f"it lacks task '{min(lost)}', which others need")
        return self


class AnswersFile(_Record):
    """What models said, in a file beside a result's rows."""

    bytes: NonNegativeInt
    sha256: str


class Provenance(_Record):
    """How a result came about, as far as a store itself reads it: tasks tell more. `seconds_each` is what an edit took,
    where that is known."""

    task: str
    output: Output
    bytes: NonNegativeInt
    sha256: str
    failed: tuple[Skipped, ...]
    notes: tuple[str, ...] = ()
    device: str | None = None
    answers: AnswersFile | None = None
    seconds_each: float | None = None


def last_line(reason: str) -> str:
    """What a traceback, or any other reason, comes down to."""
    return (reason.strip() or "no reason given").splitlines()[-1]


class Failure(_Record):
    """Why a task was given up: the reason in full, and its last line."""

    task: str
    title: str
    reason: str

    @property
    def summary(self) -> str:
        return last_line(self.reason)


@dataclass(frozen=True)
class Standing:
    """Which tasks of a campaign are done, or not needed, and which of the others were given up when last tried."""

    done: frozenset[str]
    failures: tuple[Failure, ...]
