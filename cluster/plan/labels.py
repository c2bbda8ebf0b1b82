"""What a task is about, in the names that a campaign gives: as those who watch it sum tasks up."""

from __future__ import annotations

from typing import NamedTuple

from cluster.plan.tasks import ScoreTask, StreamTask, Task, TrainTask, ValuesTask


class Labels(NamedTuple):
    """Empty, or 0, where a kind of task has no such thing. `editor` is a method's name, whatever tables call it."""

    kind: str
    model: str
    editor: str = ""
    dataset: str = ""
    protocol: str = ""
    edits: int = 0


def labels_of(task: Task, model: str) -> Labels:
    """Of a task on a model of this name."""
    match task:
        case ScoreTask():
            return Labels(task.kind, task.model_title, task.method.editor.name, task.chunk.dataset, task.protocol.name,
                          task.count)
        case StreamTask() | ValuesTask():
            return Labels(task.kind, model, task.method.editor.name)
        case TrainTask():
            return Labels(task.kind, model, task.editor.name)
    return Labels(task.kind, model)
