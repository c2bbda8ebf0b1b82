"""What a result's provenance says: what it was made of and with, and what came of it. And the rows of scores."""

from __future__ import annotations

import math
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import torch

from cluster.plan.tasks import ScoreTask, StatisticsTask, Task, TrainTask
from cluster.store.store import ANSWER_SCHEMA, ROW_SCHEMA
from editors.core.models.statistics import SecondMoment, tokens_of
from editors.core.places import shown
from evaluators.cases import Skipped, ask
from evaluators.metering.device import device_name
from evaluators.scoring.metrics import Score
from evaluators.scoring.said import Answer

Told = dict[str, Any]
PACKAGES = ("editfleet", "torch", "transformers", "tokenizers", "numpy", "ray")


def made_of(task: Task, device: str) -> Told:
    """What every task tells."""
    return {"task": task.id, "kind": task.kind, "title": task.title, "model": asdict(task.model), "needs": task.needs,
            "edits": task.edits, "identity": task.identity(), "device": f"{device} {device_name(device)}".strip(),
            "threads": torch.get_num_threads(), "versions": _versions()}


def rows(task: ScoreTask, scores: Sequence[Score]) -> pa.Table:
    """One row per score. Nothing in them differs between two runs of the same task."""
    same = _same(task)
    return pa.Table.from_pylist([{**same, **asdict(score)} for score in scores], schema=ROW_SCHEMA)


def answers(task: ScoreTask, said: Sequence[Answer]) -> pa.Table:
    """One row per answer. Nothing in them differs between two runs of the same task."""
    same = _same(task)
    own = dict(zip(Answer._fields, zip(*said, strict=True), strict=True)) if said else {}
    return pa.table([_column(own.get(name, ()), field.type) if name not in same else
                     _column((same[name],) * len(said), field.type)
                     for field in ANSWER_SCHEMA for name in [field.name]], schema=ANSWER_SCHEMA)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(kind):
        return pa.array(values, kind)
    return pa.array(values, kind.value_type).dictionary_encode()


def _same(task: ScoreTask) -> dict[str, Any]:
    """The columns of which all rows of a task have the same."""
    return {"editor": task.editor_title, "model": task.model_title, "dataset": task.chunk.dataset,
            "protocol": task.protocol.name, "edits": task.count, "task": task.id, "settings": task.settings,
            "seed": task.method.seed, "order": task.order}


def scored(task: ScoreTask, scores: Sequence[Score]) -> Told:
    """What an `Account` tells of scores."""
    values: dict[str, list[float]] = defaultdict(list)
    for each in scores:
        if math.isfinite(each.value):
            values[each.metric].append(each.value)
    cases = {each.case_id for each in scores}
    probes = sum(key.which == "answer" and key.role in task.measures.edited_roles
                 for case in task.chunk.cases if case.id in cases for key, _, _ in ask(case))
    return {"probes": probes, "diverged": int(sum(values.get("edit.diverged", []))),
            "scored": {metric: (math.fsum(found), len(found)) for metric, found in values.items()}}


def shortcomings(moments: Mapping[str, SecondMoment], task: StatisticsTask) -> list[str]:
    """What people should know of the second moments of a whole text that is shorter than it should be."""
    tokens, width = tokens_of(moments), max(len(moment.total) for moment in moments.values())
    told = [f"corpus '{shown(task.corpus)}' has {tokens:,} of the {task.tokens:,} tokens that second moments were "
            "asked over"] if tokens < task.tokens else []
    if tokens < width:
        told.append(f"second moments over {tokens:,} tokens are singular, as keys have {width:,} dimensions: what "
                    "editors solve with them rests on the ridge; take a longer text, or more of its 'tokens'")
    return told


def left_out(task: TrainTask, skipped: Sequence[Skipped]) -> list[str]:
    """What people should know of training that went without some of its cases."""
    if not skipped:
        return []
    first = skipped[0]
    return [f"{task.title}: {len(skipped)} of {len(task.cases.cases)} training cases could not be used, such as "
            f"{first.case_id}: {first.reason}"]


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
