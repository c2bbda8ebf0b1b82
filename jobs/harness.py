"""`editfleet harness`: other tasks than the edit's own (paper, section 5.2), before and after it, with EleutherAI's
lm-evaluation-harness.

    python -m jobs.harness testbed-gptj --patch edit.safetensors --tasks piqa,lambada_openai --out harness.json
"""

from __future__ import annotations

import copy
import difflib
import importlib.metadata
import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer
from rich.table import Table

from jobs.console import console, exit_codes

if TYPE_CHECKING:
    from editors.core.models.model import LanguageModel
    from editors.core.patches.patch import Patch

INSTALL = "pip install 'lm-eval>=0.4.13' 'accelerate>=1'"
RESAMPLES = 1000  # for the standard errors of metrics that have no formula

Scores = dict[tuple[str, str], tuple[float, float | None]]  # by task and metric, a value and its standard error


class Change(NamedTuple):
    """One metric of one task on the unedited and, where there is an edit, the edited model."""

    task: str
    metric: str
    unedited: float
    unedited_error: float | None
    edited: float | None
    edited_error: float | None

    @property
    def difference(self) -> float | None:
        return None if self.edited is None else self.edited - self.unedited


def harness(
    model: Annotated[str, typer.Argument(help="A built-in model, a folder or a hub name.")],
    tasks: Annotated[str, typer.Option(help="Names of the harness's tasks, with commas between them.")],
    out: Annotated[Path, typer.Option(help="JSON file for the results.")],
    patch: Annotated[list[Path] | None, typer.Option(help="A saved patch; several add up.")] = None,
    include_path: Annotated[Path | None, typer.Option(help="A folder with tasks of your own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many questions of each task.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions in a batch.")] = 8,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(
        help="The weights' precision.")] = "float32",
) -> None:
    """Run tasks of lm-evaluation-harness on a model, unedited and with patches on it, and show the difference."""
    with exit_codes():
        _check_place(out)
        manager = _open_tasks(include_path)
        names = _check_tasks(tasks, manager)
        _check_device(device)
        files = patch or []
        from editors.core.models.loading import load_model
        from evaluators.testbed import model_path

        loaded = load_model(model_path(model), name=model, device=device, dtype=dtype)
        edit = load_edit(files, loaded)
        changes = compare(loaded, edit if files else None, names, manager, limit=limit, batch_size=batch_size)
        record = {"model": model, "digest": loaded.digest, "dtype": dtype, "patches": [str(file) for file in files],
                  "limit": limit, "lm_eval": importlib.metadata.version("lm-eval"), "results": changes}
        _write(out, record)
        console().print(_table(changes))


# --- what the user gave


def _open_tasks(folder: Path | None) -> Any:
    """The harness's index of tasks. Raises `InputError` where the harness is not installed."""
    from editors.core.errors import InputError

    try:
        import lm_eval.models.huggingface  # needs more than the harness itself
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(f"lm-evaluation-harness cannot be imported ({error}). Install it: {INSTALL}") from error
    if folder is not None and not folder.is_dir():
        raise InputError(f"--include-path: there is no folder '{folder}'")
    logging.getLogger(lm_eval.__name__).setLevel(logging.ERROR)
    return TaskManager(include_path=folder)


def _check_tasks(given: str, manager: Any) -> list[str]:
    from editors.core.errors import InputError

    names = [name for part in given.split(",") if (name := part.strip())]
    if not names:
        raise InputError("--tasks names no task")
    for name in names:
        if name not in manager.all_tasks:
            close = difflib.get_close_matches(name, manager.all_tasks, n=1)
            meant = f" Did you mean '{close[0]}'?" if close else ""
            raise InputError(f"unknown task '{name}'.{meant} `lm-eval ls tasks` lists what the harness has; a folder "
                             "with tasks of your own goes to --include-path")
    return list(dict.fromkeys(names))


def _check_place(out: Path) -> None:
    from editors.core.errors import InputError

    if not out.parent.is_dir() or out.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"cannot write to '{out}': --out is a file in a folder that exists and can be written to")


def _check_device(device: str) -> None:
    import torch

    from editors.core.errors import InputError

    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        raise InputError(f"--device: cannot use '{device}' here: {str(error).splitlines()[0]}") from error


def load_edit(files: Sequence[Path], model: LanguageModel) -> Patch:
    """The sum of saved patches. Raises `InputError` for one that this model cannot carry."""
    from editors.core.patches.patch import Patch

    edit = Patch()
    for file in files:
        part = Patch.load(file).to(model.device)
        _check_fit(part, file, model)
        edit += part
    return edit.compact()


def _check_fit(patch: Patch, file: Path, model: LanguageModel) -> None:
    """Refuses a patch with which the harness would still see the unedited model, or one made for another model."""
    from editors.core.errors import InputError
    from editors.core.models.batches import Encoded
    from editors.core.patches.overlay import overlay
    from editors.core.patches.patch import Route

    if any(isinstance(term, Route) for term in patch.terms):
        raise InputError(f"'{file}' routes questions to a second model, as SERAC does; the harness asks the edited "
                         "model itself and would see the unedited one. Use a patch of another editor")
    try:
        with overlay(model, patch):
            model.states(model.collate([Encoded((0,), (0,))]))
    except (AttributeError, RuntimeError) as error:
        raise InputError(f"'{file}' does not fit model '{model.name}' ({error}). Use a patch that was made for this "
                         "model") from error


# --- the harness


def compare(model: LanguageModel, edit: Patch | None, tasks: Sequence[str], manager: Any, *, limit: int | None,
            batch_size: int) -> list[Change]:
    """Scores of all tasks on the unedited model and, where there is an edit, on the edited one."""
    from editors.core.patches.overlay import overlay

    wrapped = wrap(model, batch_size)
    before, after = _evaluate(wrapped, tasks, manager, limit), None
    if edit is not None:
        with overlay(model, edit):
            after = _evaluate(wrapped, tasks, manager, limit)
    return [Change(task, metric, *score, *((None, None) if after is None else after[task, metric]))
            for (task, metric), score in before.items()]


def wrap(model: LanguageModel, batch_size: int) -> Any:
    """The model as the harness takes it, which asks the very module that `overlay` edits.

    The harness ties a T5's head to its input embeddings, whatever the checkpoint has; so the head is put back.
    """
    from lm_eval.models.huggingface import HFLM

    head = model.module.get_output_embeddings()
    own = head.weight
    wrapped = HFLM(pretrained=model.module, tokenizer=_closing_tokenizer(model), batch_size=batch_size)
    head.weight = own
    return wrapped


def _closing_tokenizer(model: LanguageModel) -> Any:
    """A copy of the tokenizer that ends an encoder's prompts with the end token, which the built-in T5's leaves out."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(model.tokenizer)
    name, end = tokenizer.eos_token, tokenizer.eos_token_id
    if model.has_encoder and tokenizer("a").input_ids[-1] != end:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"$A {name}", special_tokens=[(name, end)])
    return tokenizer


def _evaluate(wrapped: Any, tasks: Sequence[str], manager: Any, limit: int | None) -> Scores:
    import lm_eval

    from editors.core.errors import InputError

    try:
        found = lm_eval.simple_evaluate(wrapped, tasks=list(tasks), task_manager=manager, limit=limit,
                                        bootstrap_iters=RESAMPLES, log_samples=False)
    except OSError as error:  # also what the data sets' hub raises
        raise InputError(f"cannot read the data of {', '.join(tasks)}: {error}") from error
    return {(task, _metric(key)): (float(value), _error(metrics, key))
            for task, metrics in found["results"].items() for key, value in metrics.items() if _is_score(key, value)}


def _is_score(key: str, value: object) -> bool:
    """Keys are `metric,filter` and `metric_stderr,filter`; others are no scores."""
    return "," in key and "_stderr," not in key and isinstance(value, int | float)


def _metric(key: str) -> str:
    return key.removesuffix(",none")


def _error(metrics: dict[str, Any], key: str) -> float | None:
    value = metrics.get(key.replace(",", "_stderr,", 1))
    return float(value) if isinstance(value, int | float) else None


# --- results


def _write(out: Path, record: dict[str, Any]) -> None:
    """Writes the file at once; numbers that are not finite are null."""
    def finite(value: float | str | None) -> float | str | None:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    results = [{name: finite(value) for name, value in {**change._asdict(), "difference": change.difference}.items()}
               for change in record["results"]]
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps({**record, "results": results}, indent=2, ensure_ascii=False) + "\n", "utf-8")
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _table(changes: Sequence[Change]) -> Table:
    edited = any(change.edited is not None for change in changes)
    table = Table("task", "metric")
    for name in ("unedited", "edited", "difference") if edited else ("unedited",):
        table.add_column(name, justify="right")
    for change in changes:
        numbers = [f"{change.unedited:.4f}"]
        if change.edited is not None and change.difference is not None:
            numbers += [f"{change.edited:.4f}", f"{change.difference:+z.4f}"]
        table.add_row(change.task, change.metric, *numbers)
    return table


if __name__ == "__main__":
    typer.run(harness)
