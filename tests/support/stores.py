"""What the tests of the store write into it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import torch

from cluster.store.store import ANSWER_SCHEMA, ROW_SCHEMA, CampaignRecord, DatasetRecord, ResultKey, TaskRecord
from editors.core.patches.patch import Dense, Patch

ROWS = ResultKey("rows", "a1")
PATCH = ResultKey("artefacts", "c0")


def rows(*values):
    row = {"editor": "ft", "model": "m", "dataset": "d", "protocol": "single", "edits": 1,
           "metric": "reliability.token", "case_id": "c", "subject": "s", "task": "a1", "seed": 0, "order": 0,
           "texts": None}
    return pa.Table.from_pylist([{**row, "value": value} for value in values], schema=ROW_SCHEMA)


def answers(*questions, **same):
    """A table of what was said: `questions` differ from one that was answered right by what they have."""
    row = {"editor": "ft", "model": "m", "dataset": "d", "protocol": "single", "edits": 1, "seed": 0, "order": 0,
           "task": "a1", "settings": "s", "case_id": "c", "subject": "Rome", "relation": "P1",
           "question": "reliability", "prompt": "Rome is in", "target": "Italy", "target_true": "France",
           "expected": "Italy",
           "unedited": "France", "edited": "Italy", "right": 1.0, "patch_norm": 2.5, **same}
    return pa.Table.from_pylist([{**row, **question} for question in questions], schema=ANSWER_SCHEMA)


def task(name, output="rows"):
    return TaskRecord(id=name, kind="score", output=output, title=f"title of {name}", edits=2)


def campaign(name, *tasks, digest="d1", started=datetime(2030, 1, 1, tzinfo=UTC)):
    return CampaignRecord(name=name, digest=digest, started=started, tasks=tasks,
                          datasets=(DatasetRecord(name="d", cases=2, skipped=()),))


def write_patch(store, key=PATCH, size=64, fill=0.5):
    with store.new_artefact(key, {"failed": []}) as path:
        Patch((Dense("m", torch.full((size, 3), fill)),), {"made": "here"}).save(path)


def read_patch(path):
    """All that a patch file holds, comparable."""
    patch = Patch.load(path)
    return patch.info, [(term.settings(), {name: value.tolist() for name, value in term.tensors().items()})
                        for term in patch.terms]


def files(store):
    """Names of the files of a local store, hidden ones too."""
    return sorted(path.relative_to(store.root).as_posix() for path in Path(store.root).rglob("*") if path.is_file())
