"""Which cases a model knows: tasks that ask it, and what is left of a data set by their results.

A campaign whose cases hang on a model's answers is planned twice: first the models are asked (`Plan.examination`), then
it is planned anew with the cases that they know, which are known as soon as the store has the results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.campaign.datasets import DatasetEntry
from cluster.plan import costs
from cluster.plan.cutting import CampaignCases
from cluster.plan.refs import Chunk, ModelRef
from cluster.plan.tasks import Task
from cluster.store.records import KnownRecord
from cluster.store.store import Store
from editors.core.errors import InputError
from evaluators.cases import Skipped
from evaluators.datasets import Dataset
from evaluators.datasets.keeping import CaseFile
from evaluators.scoring.known import TABLE, Criterion, Recall, from_table, names_of

VERSION = 1  # grows when the answers that are kept change
CHUNK = 100  # cases in one task, whatever the campaign's `chunk`: campaigns with other limits share them


@dataclass(frozen=True)
class KnownTask(Task):
    """How the unedited model answers the prompts of a chunk's cases. By which criterion a fact counts as known is no
    part of it: all read the same answers."""

    kind = "known"
    output = "baselines"
    chunk: Chunk

    def identity(self) -> dict[str, Any]:
        return {"version": VERSION, "cases": self.chunk.digest}

    @property
    def cost(self) -> float:
        return costs.known_seconds(self.model.shape) * len(self.chunk.cases)

    @property
    def pieces(self) -> int:
        return len(self.chunk.cases)


class Knowledge:
    """What the store has of models' answers; nothing without a store. Where `final`, nobody will be asked any more, and
    data sets whose answers are missing are left out; else they are planned as if the model knew every case."""

    def __init__(self, store: Store | None = None, *, final: bool = False) -> None:
        self.final = final
        self._store = store

    def of(self, tasks: Sequence[KnownTask]) -> dict[str, tuple[Sequence[Recall], Sequence[Skipped]]]:
        """The answers of those tasks that are done, by task. Damaged ones are put aside, and count as not done."""
        if self._store is None:
            return {}
        there = self._store.done(task.key for task in tasks)
        found = self._store.tables([task.key for task in tasks if task.id in there], TABLE)
        return {key.id: from_table(table) for key, table in found.items()}


@dataclass(frozen=True)
class Examination:
    """What a model is asked of a data set, and what came of it. `cases` are what the campaign takes of it; None where
    that is nothing, or is not known, and will not be. `missing` are the tasks without a result."""

    tasks: tuple[KnownTask, ...]
    missing: tuple[KnownTask, ...]
    record: KnownRecord
    cases: CampaignCases | None

    @property
    def to_do(self) -> tuple[KnownTask, ...]:
        """The tasks that belong to the plan: those that failed before are not tried twice."""
        return self.tasks if self.cases is not None else tuple(task for task in self.tasks if task not in self.missing)


def examine(cases: CampaignCases, entry: DatasetEntry, name: str, model: ModelRef,
            knowledge: Knowledge) -> Examination:
    """Of a data set whose `entry` keeps it to what a model knows. Raises `InputError` where no case tells its true
    answer."""
    data = cases.dataset
    untold = sum(not names_of(case) for case in data.cases)
    if untold == len(data.cases):
        raise InputError(f"data set '{entry.name}' tells no true answer of any of its {untold} cases, so it cannot be "
                         f"kept to those that a model knows; leave 'known: {entry.known}' out, or give its records one "
                         "('target_true'; of ZsRE, 'target: alt' reads it)")
    tasks = tuple(KnownTask(f"what {name} knows of {chunk}", model, chunk) for chunk in cases.chunks(CHUNK))
    answers = knowledge.of(tasks)
    missing = tuple(task for task in tasks if task.id not in answers)
    criterion = Criterion.parse(entry.known)
    record = KnownRecord(model=name, dataset=entry.name, by=str(entry.known), examined=len(data.cases), known=0, kept=0,
                         untold=untold, missing=len(missing))
    if missing and knowledge.final:
        return Examination(tasks, missing, record.model_copy(update={"left_out": True}), None)
    if missing:
        places = [place for place, case in enumerate(data.cases) if names_of(case)]
    else:
        known = {recall.case_id for recalls, _ in answers.values() for recall in recalls if criterion.holds(recall)}
        places = [place for place, case in enumerate(data.cases) if case.id in known]
    kept = places[:entry.limit]
    unusable = () if missing else tuple(case for _, unfit in answers.values() for case in unfit)
    record = record.model_copy(update={"known": len(places), "kept": len(kept), "unusable": unusable})
    source = {**data.provenance, "limit": entry.limit, "known": record.model_dump(exclude={"unusable", "left_out"})}
    return Examination(tasks, missing, record, cases.kept(_copied(data, kept), source) if kept else None)


def _copied(data: Dataset, places: Iterable[int]) -> Dataset:
    """A data set of these cases alone, counted anew from the first."""
    file = CaseFile()
    for case in data.cases.at(list(places)):
        file.add(case)
    return Dataset(data.spec, file.cases(), data.skipped, data.format, data.digest)


def told(found: KnownRecord) -> Iterator[str]:
    """What was found of a data set and a model, in a line, and the cases that could not be asked about."""
    what = f"{found.examined} cases of {found.dataset} by {found.model} ({found.by})"
    if found.left_out:
        yield f"known: could not be found out for {what}, so the data set is left out for this model"
    elif found.missing:
        yield (f"known: not found out yet for {what}; until then, tasks are counted as if all were known: "
               f"{found.kept} cases, at most")
    else:
        taken = "" if found.known else "; so the data set is left out for this model"
        if found.kept < found.known:
            taken = f"; the first {found.kept} are taken"
        untold = f"; {found.untold} have no true answer" if found.untold else ""
        unfit = f"; {len(found.unusable)} could not be asked:" if found.unusable else ""
        yield f"known: {found.known} of {what}{taken}{untold}{unfit}"
        yield from (f"  {case.case_id}: {case.reason}" for case in found.unusable)
