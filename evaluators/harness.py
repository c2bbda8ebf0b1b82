"""Other tasks than the edit's own (Yao et al. 2023, section 5.2), before and after it, with EleutherAI's
lm-evaluation-harness."""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from editors.core.errors import InputError
from editors.core.places import scrubbed

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

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "difference": self.difference}


def open_tasks(folder: Path | None = None) -> Any:
    """The harness's index of tasks, and of those in `folder`.

    Raises `InputError` where the harness is not installed, or there is no such folder.
    """
    try:
        import lm_eval.models.huggingface  # needs more than the harness itself
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise InputError(f"lm-evaluation-harness cannot be imported ({error}). Install it: {INSTALL}") from error
    if folder is not None and not folder.is_dir():
        raise InputError(f"there is no folder '{folder}' to take tasks from")
    logging.getLogger(lm_eval.__name__).setLevel(logging.ERROR)
    return TaskManager(include_path=folder)


def check_tasks(names: Sequence[str], manager: Any) -> list[str]:
    """The names, each once. Raises `InputError` where there are none, and for one that the harness does not have."""
    if not names:
        raise InputError("no task is named")
    for name in names:
        if name not in manager.all_tasks:
            close = difflib.get_close_matches(name, manager.all_tasks, n=1)
            meant = f" Did you mean '{close[0]}'?" if close else ""
            raise InputError(f"unknown task '{name}'.{meant} `lm-eval ls tasks` lists what the harness has; a folder "
                             "with tasks of your own goes to --include-path")
    return list(dict.fromkeys(names))


def load_edit(files: Sequence[Path], model: LanguageModel) -> Patch:
    """The sum of saved patches. Raises `InputError` for one that this model cannot carry."""
    from editors.core.patches.fitting import refuse_misfits
    from editors.core.patches.patch import Patch, Route

    edit = Patch()
    for file in files:
        patch = Patch.load(file).to(model.device)
        if any(isinstance(term, Route) for term in patch.terms):
            raise InputError(f"'{file}' routes questions to a second model, as SERAC does; the harness asks the edited "
                             "model itself and would see the unedited one. Use a patch of another editor")
        try:
            refuse_misfits(model, [patch])
        except InputError as error:
            raise InputError(f"'{file}': {error}") from error
        if not patch.is_finite:
            raise InputError(f"'{file}' has numbers that are not finite: the edit diverged, and so would the harness's "
                             "scores. Use another patch")
        edit += patch
    return edit.compact()


def compare(model: LanguageModel, edit: Patch | None, tasks: Sequence[str], manager: Any, *, limit: int | None,
            batch_size: int) -> list[Change]:
    """Scores of all tasks on the unedited model and, where there is an edit, on the edited one; `limit` is the number
    of questions of each task. Raises `InputError` where the tasks' data cannot be read."""
    from editors.core.patches.overlay import overlay

    wrapped = wrap(model, batch_size)
    before, after = _evaluate(wrapped, tasks, manager, limit), None
    if edit is not None:
        with overlay(model, edit):
            after = _evaluate(wrapped, tasks, manager, limit)
    return [Change(task, metric, *score, *((None, None) if after is None else after[task, metric]))
            for (task, metric), score in before.items()]


def wrap(model: LanguageModel, batch_size: int) -> Any:
    """The model as the harness takes it, which asks the very module that `overlay` edits."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing

    # An encoder's prompts have to end with the end token, which the built-in T5's tokenizer leaves out.
    tokenizer = copy.deepcopy(model.tokenizer)
    name, end = tokenizer.eos_token, tokenizer.eos_token_id
    if model.has_encoder and tokenizer("a").input_ids[-1] != end:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"$A {name}", special_tokens=[(name, end)])
    # The harness ties a T5's head to its input embeddings, whatever the checkpoint has; so the head is put back.
    head = model.module.get_output_embeddings()
    own = head.weight
    wrapped = HFLM(pretrained=model.module, tokenizer=tokenizer, batch_size=batch_size, trust_remote_code=False)
    head.weight = own
    return wrapped


def _evaluate(wrapped: Any, tasks: Sequence[str], manager: Any, limit: int | None) -> Scores:
    import lm_eval

    try:
        found = lm_eval.simple_evaluate(wrapped, tasks=list(tasks), task_manager=manager, limit=limit,
                                        bootstrap_iters=RESAMPLES, log_samples=False)
    except OSError as error:  # also what the data sets' hub raises
        raise InputError(f"cannot read the data of {', '.join(tasks)}: {scrubbed(str(error))}") from error
    scores: Scores = {}
    for task, metrics in found["results"].items():
        for key, value in metrics.items():
            # Keys are `metric,filter` and `metric_stderr,filter`; what has no comma is no score.
            if "," in key and "_stderr," not in key and isinstance(value, int | float):
                spread = metrics.get(key.replace(",", "_stderr,", 1))
                scores[task, key.removesuffix(",none")] = (
                    float(value), float(spread) if isinstance(spread, int | float) else None)
    return scores
