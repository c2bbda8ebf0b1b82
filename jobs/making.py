"""Edits made for keeps, outside of a campaign: from what the options say to a patch and the model it is for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from cluster.campaign.reading import Reader
from cluster.campaign.source import Origin, Source
from cluster.campaign.spec import Campaign
from cluster.plan.cutting import CampaignCases
from cluster.plan.planner import plan
from cluster.plan.tasks import BaselineTask, ScoreTask, StatisticsTask, StreamTask
from editors import get_editor
from editors.core.errors import CaseError, InputError, first_problem, quoted
from editors.core.printable import printable
from editors.core.requests import EditRequest
from evaluators.cases import Case, Skipped
from evaluators.datasets import TESTBED_CORPUS, DatasetSpec, load_dataset, read_corpus
from evaluators.models import NAMES
from evaluators.protocols.sequential import SequentialProtocol
from evaluators.testbed import MODELS
from evaluators.testbed.learned import find_learned
from jobs.console import CAMPAIGNS, count, data_set, shorten, warn

if TYPE_CHECKING:
    from editors.core.models.model import LanguageModel
    from editors.core.patches.patch import Patch

Facts = Annotated[str | None, typer.Option("--facts", "--data", help="Edits: a file or URL, or a built-in data set.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many records of them.")]
Format = Annotated[str | None, typer.Option(help="What records look like, where they do not tell.")]
Prompt = Annotated[str | None, typer.Option(help="One edit: its prompt,")]
Subject = Annotated[str | None, typer.Option(help="the part of the prompt that the fact is about,")]
Target = Annotated[str | None, typer.Option(help="and how the model shall continue the prompt.")]
Set = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting of the editor.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the editor.")]
Artefact = Annotated[str | None, typer.Option(help="What a trained editor learned (`editfleet train`); without it "
                                              "and --train, what comes with EditFleet for a built-in model.")]
Train = Annotated[str | None, typer.Option(help="Cases to train an editor with: a file or URL.")]
Corpus = Annotated[str | None, typer.Option(help="Text for second moments (ROME, MEMIT); without it, the built-in "
                                            "world's for a built-in model, and `campaigns/real.txt` for others.")]
Tokens = Annotated[int, typer.Option(min=1, help="How many tokens of it.")]
Stream = Annotated[bool, typer.Option("--stream", help="One after another, each on the model as edited before.")]


@dataclass(frozen=True)
class Made:
    """A patch, the model that it is for, the cases that it edits, and those that could not be edited."""

    model: LanguageModel
    patch: Patch
    cases: Sequence[Case]
    skipped: Sequence[Skipped]


def settings_of(texts: Sequence[str] | None) -> dict[str, Any]:
    """NAME=VALUE each, the values as YAML. Raises `InputError`."""
    found: dict[str, Any] = {}
    for name, value in map(_setting, texts or ()):
        if name in found:
            raise InputError(f"--set {quoted(name)} is given twice")
        found[name] = value
    return found


def _setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as YAML. Raises `InputError`."""
    name, equals, value = text.partition("=")
    if name and equals and value.strip():
        return name, Reader().read_option(value, f"--set {quoted(name)}").fields
    raise InputError(f"--set {quoted(text)}: expected NAME=VALUE, such as lr=0.1 or layers=[3,4]")


def check_one(one: dict[str, str | None], alone: bool) -> None:
    """Raises `InputError` unless a single edit is named by all its parts, or, without one, by none."""
    if not alone:
        for name, value in one.items():
            if value is not None:
                raise InputError(f"--{name} is of a single edit, which has --prompt, --subject and --target: leave it "
                                 "out, or what names other edits")
        return
    for name, what in (("prompt", "the text that the model continues"),
                       ("subject", "the part of the prompt that the fact is about"),
                       ("target", "how the model shall continue the prompt")):
        if not (one[name] or "").strip():
            raise InputError(f"--{name} is {'missing' if one[name] is None else 'empty'}: give it {what}")
    try:
        EditRequest(one["prompt"] or "", one["subject"] or "", one["target"] or "")
    except CaseError as error:
        raise InputError(f"--subject: {error}") from error


def edits_of(data: str | None, one: dict[str, str | None], folder: Path, **more: Any) -> DatasetSpec:
    """The data set of the edits; a single edit as a file in `folder`."""
    if data is not None:
        return data_set(data, **more)
    file = folder / "edit.json"
    file.write_text(json.dumps([{"id": "edit", "target_new": one["target"], "prompt": one["prompt"],
                                 "subject": one["subject"]}]), encoding="utf-8")
    return data_set(str(file), name="edit", **more)


def campaign_of(edits: DatasetSpec, *, model: str, dtype: str, editor: str, settings: dict[str, Any],
                artefact: str | None, seed: int, corpus: str | None, tokens: int, stream: bool) -> Campaign:
    """A campaign of all edits on one model: at once, where the editor can and nobody wants a stream, else one after
    another. Raises `InputError`."""
    if artefact is not None and edits.train is not None:
        raise InputError(f"--train {quoted(edits.train)} and --artefact {quoted(artefact)}: leave one out")
    if corpus is None:
        corpus = TESTBED_CORPUS if model in MODELS else str(CAMPAIGNS / "real.txt")
    else:
        _refuse_unreadable(corpus)
    number, method = CampaignCases(load_dataset(edits)).count(0), get_editor(editor)
    step = number if method.joint and not stream else 1
    untaught = method.trained and artefact is None and edits.train is None and not edits.is_built_in
    if untaught and (artefact := shipped(editor, model)) is None:
        raise InputError(f"editor '{editor}' has to be trained first: name cases to train it with, whose facts are not "
                         "among the edits, with --train, or what it has learned (`editfleet train`) with --artefact")
    try:
        campaign = Campaign.model_validate({
            "name": "edits", "datasets": [edits.model_dump(exclude_unset=True)],
            "models": [{"name": model, "dtype": dtype, **_place(model)}], "seeds": [seed],
            "editors": [{"name": editor, "config": settings, "artefact": artefact}],
            "statistics": {"corpus": corpus, "tokens": tokens},
            "protocols": [{"name": "sequential", "lengths": [number], "step": step}]})
    except ValidationError as error:
        raise InputError(f"the command line: {first_problem(error)}") from None
    here = Origin("the command line")  # and not the places in a campaign that nobody wrote
    campaign._source = Source(here.file, {
        **{(part, 0): here for part in ("models", "datasets", "editors", "protocols")},
        ("statistics", "corpus"): Origin("--corpus"), ("editors", 0, "artefact"): Origin("--artefact"),
        **{("editors", 0, "config", name): Origin(f"--set {quoted(name)}") for name in settings}})
    return campaign


def shipped(editor: str, model: str) -> str | None:
    """The file with what a trained editor learned for a built-in model, where one comes with EditFleet."""
    if model not in MODELS:
        return None
    from editors.core.models.loading import find_model

    found = find_learned(editor, find_model(MODELS[model], weights=False).digest)
    return str(found) if found else None


def _refuse_unreadable(corpus: str) -> None:
    """A plan opens no text that its editor has no use for."""
    try:
        read_corpus(corpus)
    except InputError as error:
        raise InputError(f"--corpus: {error}") from None


def _place(model: str) -> dict[str, str]:
    """Where a model is that lies in the current folder: edits are made here, and not by workers who are elsewhere."""
    return {"path": os.path.abspath(model)} if model not in NAMES and os.path.exists(model) else {}


def make_edits(campaign: Campaign, device: str, folder: Path, say: Callable[[str], None]) -> Made:
    """Prepares what the editor needs, in a store below `folder`, and makes the edits; `say` is told what goes on.
    Raises `InputError` where none could be made; those that could not are told."""
    say(f"loading {campaign.models[0].name}")
    planned = plan(campaign)
    for note in planned.notes:
        warn(printable(note))
    from cluster.store.store import Store
    from cluster.workers.executor import TaskExecutor
    from editors import load_model
    from evaluators.kept import make

    [(name, ref)] = planned.models.items()
    model = load_model(ref.path, name=name, device=device, dtype=ref.dtype)
    executor = TaskExecutor(Store.create(folder / "store"), device)
    executor.held.load = lambda *_, **__: model
    tasks = [task for task in planned.tasks.values() if not isinstance(task, BaselineTask | ScoreTask)]
    [stream] = [task for task in tasks if isinstance(task, StreamTask)]
    for task in tasks:
        if task is not stream:
            say(task.title + (f", over up to {task.tokens:,} tokens of {Path(task.corpus).name}"
                              if isinstance(task, StatisticsTask) else ""))
            executor.run(task)
    say(f"editing {count(len(stream.chunk.cases), 'fact')} by {campaign.editors[0].name}")
    assert isinstance(stream.protocol, SequentialProtocol)
    patch, cases, failed = make(executor.editor_of(stream), stream.chunk.cases, stream.protocol.step)
    skipped = (*planned.datasets[0].skipped, *failed)
    reasons = [f"  {case.case_id}: {case.reason}" for case in skipped]
    if not cases:
        raise InputError("\n".join(["no edit could be made:", *shorten(reasons)]))
    if reasons:
        warn("\n".join([f"{count(len(reasons), 'edit')} left out:", *shorten(reasons)]))
    return Made(model, patch, cases, skipped)
