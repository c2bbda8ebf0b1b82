"""Runs one task on one model and writes its result to the store. Knows no Ray: a loop over tasks is a campaign too."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any

import pyarrow as pa
import torch

from cluster.plan.refs import EditorRef, ModelRef, digest
from cluster.plan.tasks import (
    BaselineTask,
    Method,
    MomentsTask,
    ScoreTask,
    StatisticsTask,
    StreamTask,
    Task,
    TrainTask,
)
from cluster.store.store import ROW_SCHEMA, ResultKey, Store
from editors import get_editor
from editors.core.artefacts import Artefact
from editors.core.editor import Editor, Resources
from editors.core.errors import InputError
from editors.core.methods.checkpoints import Checkpoint
from editors.core.models.loading import load_model, model_digest
from editors.core.models.model import LanguageModel
from editors.core.models.shards import WHOLE
from editors.core.models.statistics import (
    SecondMoment,
    load_moments,
    save_moments,
    second_moments,
    sum_moments,
    tokens_of,
)
from editors.core.patches.patch import Route
from editors.core.places import shown
from evaluators.cases import Case, Skipped
from evaluators.datasets import check_content, corpus_digest, read_corpus, training_example
from evaluators.protocols.result import ProtocolResult
from evaluators.protocols.stream import Stream, judge_stream
from evaluators.scoring.judge import baseline
from evaluators.scoring.metrics import Score
from evaluators.scoring.observe import TABLE, from_table, to_table
from evaluators.scoring.usable import unusable

PACKAGES = ("editfleet", "torch", "transformers", "tokenizers", "numpy", "ray")


def train(task: TrainTask, model: LanguageModel, checkpoint: Checkpoint,
          on_step: Callable[[int, float], None] | None = None) -> Artefact:
    """What the method learns from the training cases that can be encoded. Goes on from `checkpoint`, where there is
    one; who has saved the outcome removes it."""
    unfit = {case.case_id for case in unusable(model, task.cases.cases)}
    examples = [training_example(case) for case in task.cases.cases if case.id not in unfit]
    check_models(task.editor)
    method = get_editor(task.editor.name)
    return method.train(model, method.Config.model_validate(task.editor.config), examples, seed=task.seed,
                        checkpoint=checkpoint, on_step=on_step)


def check_models(ref: EditorRef) -> None:
    """Raises `InputError` where a model that an editor's settings name is not the one it was planned with."""
    for name, planned in ref.content.items():
        check_content(ref.config[name], planned, model_digest)


def in_parts(cases: Sequence[Case], parts: int, unit: int = 1) -> list[Sequence[Case]]:
    """Cases in `parts` pieces of about one size, or fewer, that are whole multiples of `unit` but for the last."""
    units = -(-len(cases) // unit)
    size = -(-units // parts) * unit
    return [cases[start: start + size] for start in range(0, len(cases), size)]


def joined(results: Sequence[ProtocolResult]) -> ProtocolResult:
    """What several pieces of one task gave, as one."""
    return ProtocolResult([score for result in results for score in result.scores],
                          [skipped for result in results for skipped in result.failed],
                          sum(result.seconds_edit for result in results),
                          sum(result.seconds_score for result in results),
                          max(result.peak_memory for result in results), results[0].memory_of)


class TaskExecutor:
    """Runs tasks and keeps what most of them share: the model and the editor used last. `load` is how models come in,
    called like `load_model`."""

    def __init__(self, store: Store, device: str = "cpu") -> None:
        self.store, self.device = store, device
        self.load: Callable[..., LanguageModel] = load_model
        self._model: LanguageModel | None = None
        self._model_key = ""
        self._editor: Editor | None = None
        self._editor_key = ""

    def run(self, task: Task, parts: int = 1) -> None:
        """Leaves the task's result in the store, under its id. Running it twice is harmless. Where memory does not
        suffice, its cases can be taken in several `parts`.

        Raises whatever keeps the task as a whole from being done; unusable cases are recorded with the result.
        """
        if self.store.has(task.key):
            return
        torch.set_num_threads(task.model.threads)
        torch.set_float32_matmul_precision("highest")  # else products may be of TF32 or bfloat16
        torch.manual_seed(0)  # editors draw from generators of their own; this keeps a stray draw repeatable
        match task:
            case BaselineTask():
                self._baseline(task, parts)
            case StatisticsTask():
                self._statistics(task)
            case MomentsTask():
                self._moments(task)
            case TrainTask():
                self._train(task)
            case StreamTask():
                self._stream(task)
            case ScoreTask():
                self._score(task, parts)
            case _:
                raise TypeError(f"no way to run a task of kind '{task.kind}'")

    def _baseline(self, task: BaselineTask, parts: int) -> None:
        model = self._hold_model(task.model)
        started = perf_counter()
        pieces = [baseline(model, cases, task.measures) for cases in in_parts(task.chunk.cases, parts)]
        observations = [observation for answers, _ in pieces for observation in answers]
        failed = [skipped for _, unusable in pieces for skipped in unusable]
        provenance = self._provenance(task, failed, cases=len(task.chunk.cases), seconds=perf_counter() - started,
                                      parts=parts)
        self.store.write_table(task.key, to_table(observations), provenance)

    def _statistics(self, task: StatisticsTask) -> None:
        model = self._hold_model(task.model)
        started = perf_counter()
        check_content(task.corpus, task.corpus_digest, corpus_digest)
        moments = second_moments(model, task.layers, read_corpus(task.corpus), task.tokens, task.shard)
        provenance = self._provenance(task, tokens=tokens_of(moments), seconds=perf_counter() - started,
                                      notes=_shortcomings(moments, task) if task.shard == WHOLE else [])
        with self.store.new_artefact(task.key, provenance) as path:
            save_moments(moments, path)

    def _moments(self, task: MomentsTask) -> None:
        started = perf_counter()
        moments = sum_moments([self.store.local(shard.key) for shard in task.shards])
        provenance = self._provenance(task, tokens=tokens_of(moments), seconds=perf_counter() - started,
                                      notes=_shortcomings(moments, task.shards[0]))
        with self.store.new_artefact(task.key, provenance) as path:
            save_moments(moments, path)
        for shard in task.shards:  # each layer's may be of gigabytes
            self.store.forget(shard.key)

    def _train(self, task: TrainTask) -> None:
        if shipped := task.shipped:
            with self.store.new_artefact(task.key, self._provenance(task, shipped=shipped.name)) as path:
                shutil.copyfile(shipped, path)
            return
        model = self._hold_model(task.model)
        started = perf_counter()
        with self.store.checkpoint(task.key) as (path, changed):
            checkpoint = Checkpoint(path, changed)
            artefact = train(task, model, checkpoint)
            provenance = self._provenance(task, examples=len(task.cases.cases), data=task.cases.source,
                                          seconds=perf_counter() - started)
            with self.store.new_artefact(task.key, provenance) as path:
                artefact.save(path)
            checkpoint.remove()

    def _stream(self, task: StreamTask) -> None:
        model = self._hold_model(task.model)
        editor = self._hold_editor(task.method, model)
        before = self._load_stream(task.before, model) if task.before else Stream()
        started = perf_counter()
        stream = task.protocol.extend(editor, task.chunk.cases, before)
        provenance = self._provenance(
            task, stream.failed[len(before.failed):], cases=len(task.chunk.cases), data=task.chunk.source,
            seconds=perf_counter() - started, seconds_edit=stream.seconds, editor=editor.provenance)
        with self.store.new_artefact(task.key, provenance) as path:
            stream.save(path)

    def _score(self, task: ScoreTask, parts: int) -> None:
        model = self._hold_model(task.model)
        result = self._result(task, model, parts)
        artefact = task.method.artefact
        # of a stream its own tasks tell it: here it may not be made at all
        editor = {} if task.stream else self._hold_editor(task.method, model).provenance
        provenance = self._provenance(
            task, result.failed, cases=len(task.chunk.cases), data=task.chunk.source, settings=task.settings,
            statistics=self._read_for(task.method),
            training=task.method.training and task.method.training.id, artefact=artefact and asdict(artefact),
            seconds_edit=result.seconds_edit, seconds_score=result.seconds_score, peak_memory=result.peak_memory,
            memory_of=result.memory_of, parts=parts, editor=editor)
        self.store.write_table(task.key, _rows(task, result.scores), provenance)

    def _result(self, task: ScoreTask, model: LanguageModel, parts: int) -> ProtocolResult:
        pieces = in_parts(task.chunk.cases, parts, task.protocol.unit(task.count))
        before = [observation for need in task.baselines
                  for observation in from_table(self.store.read_table(need.key, TABLE))]
        if task.stream:
            stream = self._load_stream(task.stream, model)
            if any(isinstance(term, Route) for term in stream.patch.terms):
                self._hold_editor(task.method, model)  # the editor brings the model that answers are routed to
            return replace(joined([judge_stream(model, cases, stream, before, task.measures) for cases in pieces]),
                           seconds_edit=stream.seconds)
        editor = self._hold_editor(task.method, model)
        return joined([task.protocol.run(editor, cases, before, task.count, task.measures) for cases in pieces])

    def _load_stream(self, key: ResultKey, model: LanguageModel) -> Stream:
        """A stream, and the seconds that all of its edits took, which no two runs have in common."""
        stream = Stream.load(self.store.local(key), model.device)
        return replace(stream, seconds=self.store.noted(key, "seconds_edit"))

    def _read_for(self, method: Method) -> dict[str, Any] | None:
        """The text whose second moments an editor was given, and how many tokens of it there were."""
        if method.statistics is None:
            return None
        return {**method.statistics.identity(), "tokens_read": self.store.noted(method.statistics.key, "tokens")}

    def _hold_model(self, ref: ModelRef) -> LanguageModel:
        """The model of a task. The one held before is let go first: two may not fit."""
        if self._model is None or self._model_key != ref.key:
            self._model = self._editor = None
            model = self.load(ref.path, device=self.device, dtype=ref.dtype)
            if model.digest != ref.digest:
                raise InputError(f"the model at '{ref.path}' has changed since the campaign was planned; run it again")
            self._model, self._model_key = model, ref.key
        return self._model

    def _hold_editor(self, method: Method, model: LanguageModel) -> Editor:
        """The editor of a task, on a model held; making one may mean factoring a large matrix."""
        key = digest([method.identity(), method.needs])
        if self._editor is None or self._editor_key != key:
            self._editor = None
            make = get_editor(method.editor.name)
            check_models(method.editor)
            moments = load_moments(self.store.local(method.statistics.key)) if method.statistics else {}
            self._editor = make(model, make.Config.model_validate(method.editor.config),
                                Resources(moments, self._artefact(method)), seed=method.seed)
            self._editor_key = key
        return self._editor

    def _artefact(self, method: Method) -> Artefact | None:
        """What a trained method learned: from its file, or from the training task."""
        if method.artefact is None:
            return Artefact.load(self.store.local(method.training)) if method.training else None
        artefact = Artefact.load(method.artefact.path)
        if artefact.digest != method.artefact.digest:
            raise InputError(f"'{method.artefact.path}' has changed since the campaign was planned; run it again")
        return artefact

    def _provenance(self, task: Task, failed: Sequence[Skipped] = (), **measured: Any) -> dict[str, Any]:
        """What the result was made of and with, and what it cost."""
        # of a CPU, what its sums hang on
        device = (torch.cuda.get_device_name(self.device) if self.device.startswith("cuda")
                  else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}")
        return {"task": task.id, "kind": task.kind, "title": task.title, "model": asdict(task.model),
                "needs": task.needs, "edits": task.edits, "identity": task.identity(),
                "device": f"{self.device} {device}".strip(), "threads": torch.get_num_threads(),
                "versions": _versions(), **measured, "failed": [case.model_dump() for case in failed]}


def _rows(task: ScoreTask, scores: Sequence[Score]) -> pa.Table:
    """One row per score. Nothing in them differs between two runs of the same task."""
    same = {"editor": task.editor_title, "model": task.model_title, "dataset": task.chunk.dataset,
            "protocol": task.protocol.name, "edits": task.count, "task": task.id, "settings": task.settings,
            "seed": task.method.seed, "order": task.order}
    return pa.Table.from_pylist([{**same, **asdict(score)} for score in scores], schema=ROW_SCHEMA)


def _shortcomings(moments: Mapping[str, SecondMoment], task: StatisticsTask) -> list[str]:
    """What people should know of the second moments of a whole text that is shorter than it should be."""
    tokens, width = tokens_of(moments), max(len(moment.total) for moment in moments.values())
    told = [f"corpus '{shown(task.corpus)}' has {tokens:,} of the {task.tokens:,} tokens that second moments were "
            "asked over"] if tokens < task.tokens else []
    if tokens < width:
        told.append(f"second moments over {tokens:,} tokens are singular, as keys have {width:,} dimensions: what "
                    "editors solve with them rests on the ridge; take a longer text, or more of its 'tokens'")
    return told


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
