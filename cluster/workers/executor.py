"""Runs one task on one model and writes its result to the store. Knows no Ray: a loop over tasks is a campaign too."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import torch

from cluster.plan.known import KnownTask
from cluster.plan.refs import ModelRef
from cluster.plan.tasks import (
    BaselineTask,
    Method,
    MomentsTask,
    ScoreTask,
    StatisticsTask,
    StreamTask,
    Task,
    TrainTask,
    ValuesTask,
)
from cluster.store.store import ResultKey, Store
from cluster.workers.held import Held, check_models
from cluster.workers.provenance import Told, answers, left_out, made_of, rows, scored, shortcomings
from cluster.workers.sought import seconds_sought, sought
from editors import get_editor
from editors.core.artefacts import Artefact
from editors.core.editor import Editor
from editors.core.memory import Room
from editors.core.methods.checkpoints import Checkpoint
from editors.core.methods.sought import save_sought
from editors.core.models.model import LanguageModel
from editors.core.models.shards import WHOLE
from editors.core.models.statistics import (
    save_moments,
    second_moments,
    sum_moments,
    tokens_of,
)
from editors.core.patches.patch import Route
from evaluators.cases import Case, Skipped
from evaluators.datasets import check_content, corpus_digest, read_corpus, training_example
from evaluators.metering.account import Account
from evaluators.metering.device import check_alone, device_name, slowed, state
from evaluators.metering.meter import Meter
from evaluators.metering.spent import Costs, Phase, Spent, at_once
from evaluators.protocols.editing import seek_each
from evaluators.protocols.efficiency import EfficiencyProtocol
from evaluators.protocols.result import ProtocolResult
from evaluators.protocols.stream import Stream, judge_stream
from evaluators.scoring import known
from evaluators.scoring.judge import baseline
from evaluators.scoring.metrics import Score
from evaluators.scoring.observe import TABLE, Observation, from_table, to_table
from evaluators.scoring.recall import recall
from evaluators.scoring.said import said
from evaluators.scoring.usable import check_read, unusable

T = TypeVar("T")


def train(task: TrainTask, model: LanguageModel, skipped: Sequence[Skipped], checkpoint: Checkpoint,
          on_step: Callable[[int, float], None] | None = None) -> Artefact:
    """What the method learns from the training cases, but for the `skipped` ones. Goes on from `checkpoint`, where
    there is one; who has saved the outcome removes it."""
    unfit = {case.case_id for case in skipped}
    examples = [training_example(case) for case in task.cases.cases if case.id not in unfit]
    check_models(task.editor)
    method = get_editor(task.editor.name)
    return method.train(model, method.Config.model_validate(task.editor.config), examples, seed=task.seed,
                        checkpoint=checkpoint, on_step=on_step)


def in_parts(cases: Sequence[Case], parts: int, unit: int = 1) -> list[Sequence[Case]]:
    """Cases in `parts` pieces of about one size, or fewer, that are whole multiples of `unit` but for the last."""
    units = -(-len(cases) // unit)
    size = -(-units // parts) * unit
    return [cases[start: start + size] for start in range(0, len(cases), size)]


def _settle(task: Task) -> None:
    """Has PyTorch compute as it does for every run of the task."""
    torch.set_num_threads(task.model.threads)
    torch.set_float32_matmul_precision("highest")  # else products may be of TF32 or bfloat16
    torch.manual_seed(0)  # editors draw from generators of their own; this keeps a stray draw repeatable


class TaskExecutor:
    """Runs tasks. What most of them share is `held`; `share` gives the costs of all processes that do a task together.
    """

    def __init__(self, store: Store, device: str = "cpu") -> None:
        self.store, self.device = store, device
        self.held = Held(device)
        #: That of the task at hand.
        self.room = Room()
        self.share: Callable[[Costs], Sequence[Costs]] = lambda costs: [costs]
        self._meter = Meter(torch.device(device))

    def run(self, task: Task, parts: int = 1) -> Account:
        """Leaves the task's result in the store, under its id, and tells what that took. Running it twice is harmless.
        Where memory does not suffice, its cases can be taken in several `parts`, and no more done at once than fits
        into such a part of it.

        Raises whatever keeps the task as a whole from being done; unusable cases are recorded with the result.
        """
        if self.store.has(task.key):
            return Account()
        self._meter = Meter(torch.device(self.device))
        _settle(task)
        self.room = self.held.room(task)
        self.room.shrink(parts)
        match task:
            case KnownTask():
                told = self._known(task, parts)
            case BaselineTask():
                told = self._baseline(task, parts)
            case StatisticsTask():
                told = self._statistics(task)
            case MomentsTask():
                told = self._moments(task)
            case TrainTask():
                told = self._train(task)
            case ValuesTask():
                told = self._values(task, parts)
            case StreamTask():
                told = self._stream(task)
            case ScoreTask():
                told = self._score(task, parts)
            case _:
                raise TypeError(f"no way to run a task of kind '{task.kind}'")
        # What the result itself was written in is known only now.
        return Account.model_validate({**told, "phases": {**told["phases"], "store": self._meter.costs["store"]}})

    def editor_of(self, task: StreamTask) -> Editor:
        """The editor that makes a task's edits, on its model, with what the tasks before it have left in the store."""
        _settle(task)
        return self._editor(task.method, self._model(task.model))

    def _known(self, task: KnownTask, parts: int) -> Told:
        return self._ask(task, parts, recall, known.to_table)

    def _baseline(self, task: BaselineTask, parts: int) -> Told:
        return self._ask(task, parts, lambda model, cases: baseline(model, cases, task.measures),
                         lambda observations, _: to_table(observations))

    def _ask(self, task: KnownTask | BaselineTask, parts: int,
             ask: Callable[[LanguageModel, Sequence[Case]], tuple[Sequence[T], Sequence[Skipped]]],
             table: Callable[[Sequence[T], Sequence[Skipped]], pa.Table]) -> Told:
        """Asks the unedited model about a task's cases, and makes a table of what it answers and what it cannot."""
        model = self._model(task.model)
        with self._meter.phase("baseline"):
            pieces = [ask(model, cases) for cases in in_parts(task.chunk.cases, parts)]
        answers = [answer for found, _ in pieces for answer in found]
        failed = [skipped for _, unusable in pieces for skipped in unusable]
        return self._write(task, table(answers, failed), failed, cases=len(task.chunk.cases),
                           seconds=self._seconds("baseline"), parts=parts)

    def _statistics(self, task: StatisticsTask) -> Told:
        model = self._model(task.model)
        with self._meter.phase("statistics"):
            check_content(task.corpus, task.corpus_digest, corpus_digest)
            check_read(model, task.corpus)
            moments = second_moments(model, task.layers, read_corpus(task.corpus), task.tokens, task.shard)
        return self._save(task, lambda path: save_moments(moments, path), tokens=tokens_of(moments),
                          seconds=self._seconds("statistics"), seconds_in_all=self._seconds("statistics"),
                          notes=shortcomings(moments, task) if task.shard == WHOLE else [])

    def _moments(self, task: MomentsTask) -> Told:
        before = sum(self.store.noted(shard.key, "seconds") for shard in task.shards)
        with self._meter.phase("statistics"):
            moments = sum_moments([self.store.local(shard.key) for shard in task.shards])
        told = self._save(task, lambda path: save_moments(moments, path), tokens=tokens_of(moments),
                          seconds=self._seconds("statistics"), seconds_in_all=before + self._seconds("statistics"),
                          notes=shortcomings(moments, task.shards[0]))
        for shard in task.shards:  # each layer's may be of gigabytes
            self.store.forget(shard.key)
        return told

    def _train(self, task: TrainTask) -> Told:
        if shipped := task.shipped:
            return self._save(task, lambda path: shutil.copyfile(shipped, path), shipped=shipped.name)
        model = self._model(task.model)
        skipped = unusable(model, task.cases.cases)
        with self.store.checkpoint(task.key) as (path, changed):
            checkpoint = Checkpoint(path, changed)
            with self._meter.phase("train"):
                artefact = train(task, model, skipped, checkpoint)
            told = self._save(task, artefact.save, skipped, examples=len(task.cases.cases) - len(skipped),
                              data=task.cases.source, seconds=self._seconds("train"), notes=left_out(task, skipped))
            checkpoint.remove()
        return told

    def _values(self, task: ValuesTask, parts: int) -> Told:
        editor = self._editor(task.method, self._model(task.model))
        with self._meter.phase("edit"):
            pieces = [seek_each(editor, cases) for cases in in_parts(task.chunk.cases, parts)]
        found = {case: value for values, _ in pieces for case, value in values.items()}
        numbered = {number: found[case.id] for number, case in enumerate(task.chunk.cases) if case.id in found}
        failed = [skipped for _, unfit in pieces for skipped in unfit]
        return self._save(task, lambda path: save_sought(numbered, path), failed, cases=len(task.chunk.cases),
                          data=task.chunk.source, seconds=self._seconds("edit"))

    def _stream(self, task: StreamTask) -> Told:
        model = self._model(task.model)
        editor = self._editor(task.method, model)
        before = self._load_stream(task.before, model) if task.before else Stream()
        stream = task.protocol.extend(editor, task.chunk.cases, before)
        self._meter.add(stream.costs)
        return self._save(task, stream.save, stream.failed[len(before.failed):], cases=len(task.chunk.cases),
                          data=task.chunk.source, seconds=sum(spent.seconds for spent in stream.costs.values()),
                          seconds_edit=stream.seconds, editor=editor.provenance)

    def _score(self, task: ScoreTask, parts: int) -> Told:
        if isinstance(task.protocol, EfficiencyProtocol):
            return self._efficiency(task, task.protocol)
        model = self._model(task.model)
        before = self._observations(task)
        stream = self._load_stream(task.stream, model) if task.stream else None
        result = self._result(task, model, before, stream, parts)
        self._meter.add(result.costs)
        artefact = task.method.artefact
        made = task.count - len(stream.failed) if stream else len(result.asked)
        seconds = stream.seconds if stream else self._seconds("edit")
        in_all = seconds + seconds_sought(self.store, task)
        # of a stream its own tasks tell it: here it may not be made at all
        editor = {} if stream else self._editor(task.method, model).provenance
        return self._write(
            task, rows(task, result.scores), result.failed, cases=len(task.chunk.cases), data=task.chunk.source,
            settings=task.settings, statistics=self._read_for(task.method),
            training=task.method.training and task.method.training.id, artefact=artefact and asdict(artefact),
            seconds_edit=seconds, seconds_each=in_all / made if made else None, seconds_score=self._seconds("score"),
            parts=parts, editor=editor, **scored(task, result.scores),
            answers=answers(task, list(said(model.tokenizer, result.asked))) if task.answers else None)

    def _efficiency(self, task: ScoreTask, protocol: EfficiencyProtocol) -> Told:
        notes, before = check_alone(self.device, protocol.device), state(self.device)
        model = self._model(task.model)
        loading = self._seconds("load")
        editor = self._editor(task.method, model)
        once = self._once(task.method, loading)
        result = protocol.run(editor, task.chunk.cases, (), task.count)
        self._meter.add(result.costs)
        after = state(self.device)
        where = (device_name(self.device), task.model.dtype)
        scores = [replace(score, texts=where) for score in (*once, *result.scores)]
        return self._write(
            task, rows(task, scores), result.failed, cases=len(task.chunk.cases), data=task.chunk.source,
            settings=task.settings, edits=protocol.times(task.count), seconds_edit=self._seconds("edit"),
            device_before=before, device_after=after, notes=notes + slowed(before, after), editor=editor.provenance,
            training=task.method.training and task.method.training.id)

    def _once(self, method: Method, loading: float) -> Iterator[Score]:
        """What is done once for any number of edits, by the metrics of costs."""
        values = {"load.seconds": loading, "making.seconds": self._seconds("load") - loading}
        if method.statistics:
            told = self.store.provenance(method.statistics.key)
            values["statistics.seconds"] = told.get("seconds_in_all", told.get("seconds", 0.0))
        if method.training:
            train = Account.model_validate(self.store.provenance(method.training)).phases.get("train")
            if train is not None:  # else it came with EditFleet
                values["training.seconds"] = train.seconds
                if (most := train.memory.device or train.memory.rss) is not None:
                    values["training.memory"] = most
        return (Score("once", "", f"cost.{name}", value) for name, value in values.items())

    def _result(self, task: ScoreTask, model: LanguageModel, before: Sequence[Observation], stream: Stream | None,
                parts: int) -> ProtocolResult:
        pieces = in_parts(task.chunk.cases, parts, task.protocol.unit(task.count))
        if stream is not None:
            if any(isinstance(term, Route) for term in stream.patch.terms):
                # The editor brings the model that answers are routed to.
                self._editor(task.method, model)
            return ProtocolResult.joined([judge_stream(model, cases, stream, before, task.measures)
                                          for cases in pieces])
        editor = self._editor(task.method, model)
        with self._meter.phase("store"):
            editor.sought = sought(self.store, task)
        try:
            return ProtocolResult.joined([task.protocol.run(editor, cases, before, task.count, task.measures)
                                          for cases in pieces])
        finally:
            editor.sought = {}

    # --- what comes in

    def _model(self, ref: ModelRef) -> LanguageModel:
        model = self.held.model(ref, self._meter)
        model.room = self.room
        return model

    def _editor(self, method: Method, model: LanguageModel) -> Editor:
        return self.held.editor(method, model, self.store, self._meter)

    def _observations(self, task: ScoreTask) -> list[Observation]:
        """What the unedited model answered to the questions of a task."""
        with self._meter.phase("store"):
            return [observation for need in task.baselines
                    for observation in from_table(self.store.read_table(need.key, TABLE))]

    def _load_stream(self, key: ResultKey, model: LanguageModel) -> Stream:
        """A stream, and the seconds that all of its edits took, which no two runs have in common."""
        with self._meter.phase("store"):
            stream = Stream.load(self.store.local(key), model.device)
            return replace(stream, seconds=self.store.noted(key, "seconds_edit"))

    def _read_for(self, method: Method) -> dict[str, Any] | None:
        """The text whose second moments an editor was given, and how many tokens of it there were."""
        if method.statistics is None:
            return None
        return {**method.statistics.identity(), "tokens_read": self.store.noted(method.statistics.key, "tokens")}

    # --- what goes out

    def _write(self, task: Task, table: pa.Table, failed: Sequence[Skipped] = (), answers: pa.Table | None = None,
               **measured: Any) -> Told:
        """Leaves a table in the store, with what models said, and gives its provenance."""
        provenance = self._told(task, failed, measured)
        with self._meter.phase("store"):
            self.store.write_table(task.key, table, provenance, answers)
        return provenance

    def _save(self, task: Task, save: Callable[[Path], Any], failed: Sequence[Skipped] = (), **measured: Any) -> Told:
        """Leaves what `save` writes in the store, and gives its provenance."""
        provenance = self._told(task, failed, measured)
        with self._meter.phase("store"), self.store.new_artefact(task.key, provenance) as path:
            save(path)
        return provenance

    def _told(self, task: Task, failed: Sequence[Skipped], measured: Mapping[str, Any]) -> Told:
        costs = at_once(self.share(self._meter.costs))
        return {**made_of(task, self.device), "prompts_begin_with": self.held.start, **measured,
                "failed": [case.model_dump() for case in failed],
                "phases": {phase: spent.model_dump(exclude_none=True) for phase, spent in costs.items()}}

    def _seconds(self, phase: Phase) -> float:
        return self._meter.costs.get(phase, Spent()).seconds
