"""`editfleet export`: a model with edits in its weights, as a folder that transformers loads without EditFleet.

    python -m jobs.export testbed-gptj --editor memit --data testbed-cloze --limit 100 --out edited
    python -m jobs.export testbed-gptj --editor rome --prompt "Pofun Debinov was born in" --subject "Pofun Debinov" \
        --target Zesmilport --out edited
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.text import Text

from cluster.campaign.reading import Reader
from cluster.campaign.source import Source
from cluster.campaign.spec import Campaign
from cluster.plan.cutting import CampaignCases
from cluster.plan.planner import plan
from cluster.plan.tasks import BaselineTask, ScoreTask, StreamTask
from editors import EDITORS, get_editor
from editors.core.errors import InputError, quoted
from editors.core.files import check_vacant
from editors.core.printable import printable
from evaluators.datasets import TESTBED_CORPUS, DatasetSpec, load_dataset
from jobs.cards import card_of_edits, card_of_patches
from jobs.console import check_device, console, count, data_set, exit_codes, shorten, warn

if TYPE_CHECKING:
    from editors.core.models.model import LanguageModel


def export(
    model: Annotated[str, typer.Argument(help="A built-in model, a folder or a hub name.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder for the edited model.")],
    editor: Annotated[str | None, typer.Option(help="The editing method.")] = None,
    data: Annotated[str | None, typer.Option(help="Edits: a file or URL, or a built-in data set.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many records of them.")] = None,
    format: Annotated[str | None, typer.Option(help="What records look like, where they do not tell.")] = None,
    prompt: Annotated[str | None, typer.Option(help="One edit: its prompt,")] = None,
    subject: Annotated[str | None, typer.Option(help="the part of the prompt that the fact is about,")] = None,
    target: Annotated[str | None, typer.Option(help="and how the model shall continue the prompt.")] = None,
    patch: Annotated[list[Path] | None, typer.Option(help="A saved patch, not edits; several add up.")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A setting of the editor.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the editor.")] = 0,
    artefact: Annotated[str | None, typer.Option(help="What a trained editor learned (`editfleet train`).")] = None,
    train: Annotated[str | None, typer.Option(help="Cases to train an editor with: a file or URL.")] = None,
    corpus: Annotated[str, typer.Option(help="Text for second moments (ROME, MEMIT).")] = TESTBED_CORPUS,
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens of it.")] = 100_000,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(
        help="The weights' precision, to edit in and to write.")] = "float32",
) -> None:
    """Write a model with edits, or saved patches, in its weights: a folder that transformers loads."""
    with exit_codes():
        check_vacant(out)
        one = {"prompt": prompt, "subject": subject, "target": target}
        _check_source({"data": data, "prompt": prompt, "patch": patch}, one, editor)
        if editor is not None:
            _check_editor(editor)
        settings = _settings(set or [])
        check_device(device)
        if editor is None:
            _export_patches(model, patch or [], out, device, dtype)
            return
        with tempfile.TemporaryDirectory() as folder:
            edits = _edits(data, one, Path(folder), limit=limit, format=format, train=train)
            campaign = _campaign(edits, {
                "models": [{"name": model, "dtype": dtype}],
                "editors": [{"name": editor, "config": settings, "artefact": artefact}],
                "seeds": [seed], "statistics": {"corpus": corpus, "tokens": tokens}})
            _export_edits(campaign, out, device, Path(folder))


def _check_source(sources: dict[str, Any], one: dict[str, str | None], editor: str | None) -> None:
    """Raises `InputError` unless the options say, in one way, what is to be written."""
    given = [f"--{name}" for name, value in sources.items() if value]
    if len(given) != 1:
        raise InputError(f"{' and '.join(given) or 'no edit'} given: take --data for a data set's edits, --prompt, "
                         "--subject and --target for one edit, or --patch for saved patches")
    parts = [name for name, value in one.items() if value is not None]
    if len(parts) != (len(one) if given == ["--prompt"] else 0):
        raise InputError("--prompt, --subject and --target go together, and without --data or --patch")
    if (editor is None) != (given == ["--patch"]):
        raise InputError("a patch is made already: leave --editor out" if editor else
                         f"--editor is missing: {', '.join(_exportable())}")


def _exportable() -> list[str]:
    return [name for name in EDITORS if get_editor(name).in_weights]


def _check_editor(name: str) -> None:
    if not get_editor(name).in_weights:
        raise InputError(f"edits by '{name}' cannot be written into a model's weights: they add neurons to it or route "
                         f"questions to a second model. Editors that can: {', '.join(_exportable())}")


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in map(_setting, texts):
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


def _edits(data: str | None, one: dict[str, str | None], folder: Path, **more: Any) -> DatasetSpec:
    """The data set of the edits; a single edit as a file in `folder`."""
    if data is not None:
        return data_set(data, **more)
    file = folder / "edit.json"
    file.write_text(json.dumps([{"id": "edit", "target_new": one["target"], "prompt": one["prompt"],
                                 "subject": one["subject"]}]), encoding="utf-8")
    return data_set(str(file), name="edit", **more)


def _campaign(edits: DatasetSpec, parts: dict[str, Any]) -> Campaign:
    """A campaign of all edits on one model: at once, where the editor can, else one after another."""
    number = CampaignCases(load_dataset(edits)).count(0)
    step = number if get_editor(parts["editors"][0]["name"]).joint else 1
    try:
        campaign = Campaign.model_validate({
            "name": "export", "datasets": [edits.model_dump(exclude_unset=True)], **parts,
            "protocols": [{"name": "sequential", "lengths": [number], "step": step}]})
    except ValidationError as error:
        raise InputError(f"the command line: {error}") from None
    campaign._source = Source("the command line")
    return campaign


def _export_edits(campaign: Campaign, out: Path, device: str, folder: Path) -> None:
    """Prepares, edits and writes. The tasks' results are kept in a store below `folder`."""
    planned = plan(campaign)
    for note in planned.notes:
        warn(printable(note))
    from cluster.store.store import Store
    from cluster.workers.executor import TaskExecutor
    from editors import save_edited
    from evaluators.protocols.stream import Stream

    [(name, ref)] = planned.models.items()
    model = _load(ref.path, name, device, ref.dtype)
    store = Store.create(folder / "store")
    executor = TaskExecutor(store, device)
    executor.load = lambda *_, **__: model
    tasks = [task for task in planned.tasks.values() if not isinstance(task, BaselineTask | ScoreTask)]
    with console().status("preparing") as status:
        for task in tasks:
            status.update(Text(printable(task.title)))
            executor.run(task)
    [task] = [task for task in tasks if isinstance(task, StreamTask)]
    stream = Stream.load(store.local(task.key), model.device)
    skipped = (*planned.datasets[0].skipped, *stream.failed)
    failed = {case.case_id for case in stream.failed}
    cases = [case for case in task.chunk.cases if case.id not in failed]
    reasons = [f"  {case.case_id}: {case.reason}" for case in skipped]
    if not cases:
        raise InputError("\n".join(["no edit could be made:", *shorten(reasons)]))
    card = card_of_edits(task, model, cases, skipped, store.noted(task.key, "versions"))
    save_edited(model, stream.patch, out, card=card)
    if reasons:
        warn("\n".join([f"{count(len(reasons), 'edit')} left out:", *shorten(reasons)]))
    _told(model, out, count(len(cases), "edit"))


def _export_patches(name: str, files: Sequence[Path], out: Path, device: str, dtype: str) -> None:
    from editors import save_edited
    from editors.core.patches.patch import Patch
    from evaluators.testbed import model_path

    patches = [Patch.load(file) for file in files]
    model = _load(model_path(name), name, device, dtype)
    together = sum(patches, Patch()).to(model.device).compact()
    save_edited(model, together, out, card=card_of_patches(model, files, together))
    _told(model, out, count(len(files), "patch" if len(files) == 1 else "patche"))


def _load(path: Path | str, name: str, device: str, dtype: str) -> LanguageModel:
    from editors import load_model

    return load_model(path, name=name, device=device, dtype=dtype)


def _told(model: LanguageModel, out: Path, what: str) -> None:
    console().print(f"{model.name} with {what} in its weights: {out}", soft_wrap=True)


if __name__ == "__main__":
    from jobs.cli import main

    main("export")
