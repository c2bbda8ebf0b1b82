"""What edits and their scores cost: CPU seconds of one thread on the built-in GPT-J, and how well they are spent.

    python -m benchmarks.editors --out benchmarks/editors.json

Operations are reckoned from shapes (`editors.core.models.work`). `gflop` counts every position that was computed, and
`gflop_real` those of real tokens alone; `padding` is the one by the other in the blocks. `share_of_peak` is what was
done on real tokens, by what products of the model's shape reach in the same run. Every time is the least of several.
The plain loop of an editor is its edits one by one, that of scoring a forward pass of all logits for each question.
Memory, `peak_mb`, is what the process had at most, without the patches.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from cluster.campaign.spec import Campaign
from cluster.plan.planner import plan
from cluster.plan.tasks import BaselineTask, ScoreTask, StreamTask
from cluster.store.store import Store
from cluster.workers.executor import TaskExecutor
from editors.core.editor import Editor
from editors.core.models.batches import Batch
from editors.core.models.kept import KeptStates
from editors.core.models.model import LanguageModel
from editors.core.models.work import DONE
from editors.core.patches.patch import Patch
from evaluators.cases import Case, Edited, EditedFacts
from evaluators.metering.instruments import reset_resident_peak, resident
from evaluators.scoring.judge import baseline, judge
from evaluators.scoring.observe import questions

NAMES = ("ft", "calinet", "t-patcher", "ke", "mend", "serac", "kn", "memit", "rome")
MANY = 100  # edits, which are measured once
PEAK_TOKENS = 1024


@dataclass
class Spent:
    """CPU seconds; operations, all and those on real tokens; likewise positions, each times the blocks that it passed.
    """

    seconds: float
    flops: float
    real_flops: float
    positions: float
    real_positions: float


class Watch:
    """Counts real tokens beside the positions that a model's blocks compute."""

    def __init__(self) -> None:
        self.positions = self.real = self.idle_flops = 0.0

    @contextmanager
    def watching(self, model: LanguageModel) -> Iterator[None]:
        run: Callable[..., Tensor] = model._run

        def counting(backbone: nn.Module, batch: Batch, *cache: Any, **start: Tensor) -> Tensor:
            flops, chosen = DONE.flops, DONE.chosen
            hidden = run(backbone, batch, *cache, **start)
            length = hidden.shape[1]
            mask = batch.attention_mask  # where it says for each token which it sees, all are real
            real = 1.0 if mask.ndim > 2 else float(mask[:, -length:].sum()) / (hidden.shape[0] * length)
            blocks = backbone._modules[model.layout("decoder").blocks]
            assert isinstance(blocks, nn.ModuleList)
            self.positions += hidden.shape[0] * length * len(blocks)
            self.real += real * hidden.shape[0] * length * len(blocks)
            # what only chosen positions take is on real tokens
            self.idle_flops += (1 - real) * (DONE.flops - flops - (DONE.chosen - chosen))
            return hidden

        vars(model)["_run"] = counting
        try:
            yield
        finally:
            del vars(model)["_run"]


def measure(model: LanguageModel, act: Callable[[], object], times: int) -> Spent:
    """What `act` takes, the least of so many times."""
    found = []
    for _ in range(times):
        watch, flops, seconds = Watch(), DONE.flops, time.process_time()
        with watch.watching(model):
            act()
        seconds, flops = time.process_time() - seconds, DONE.flops - flops
        found.append(Spent(seconds, flops, flops - watch.idle_flops, watch.positions, watch.real))
    return min(found, key=lambda spent: spent.seconds)


def peak(model: LanguageModel, times: int = 10) -> float:
    """Operations a second of products of fp32 matrices that are those of the model's FFN."""
    width, inner = model.matrix(model.down_path(0))
    left, right = torch.randn(PEAK_TOKENS, width), torch.randn(width, inner)
    least = float("inf")
    for _ in range(times):
        seconds = time.process_time()
        for _ in range(10):
            left @ right
        least = min(least, (time.process_time() - seconds) / 10)
    return 2 * PEAK_TOKENS * width * inner / least


@torch.no_grad()
def ask_one_by_one(model: LanguageModel, cases: Sequence[Case]) -> None:
    """All questions that scoring asks, each by a pass of its own."""
    for case in cases:
        for encoded in questions(model, case).values():
            model.module(input_ids=torch.tensor([[*encoded.prompt, *encoded.target]])).logits.log_softmax(-1)


def peak_mb(patches: Sequence[Patch]) -> int:
    """Megabytes that this process had at most since `reset_resident_peak`, without these patches; 0 where the kernel
    does not tell."""
    most = resident().rss
    return 0 if most is None else round((most - sum(patch.nbytes for patch in patches)) / 1e6)


def prepare(names: Sequence[str], cases: int, folder: Path) -> tuple[LanguageModel, dict[str, Editor], Sequence[Case]]:
    """The model, the editors with all that they need, and cases to edit."""
    planned = plan(Campaign.model_validate({
        "name": "editors", "models": ["testbed-gptj"], "editors": list(names), "chunk": cases,
        "datasets": [{"name": "testbed-cloze", "limit": cases}], "statistics": {"tokens": 30_000},
        "protocols": [{"name": "sequential", "lengths": [cases]}]}))
    executor, editors, edited = TaskExecutor(Store.create(folder / "store")), dict[str, Editor](), tuple[Case, ...]()
    for task in planned.tasks.values():
        if not isinstance(task, StreamTask | BaselineTask | ScoreTask):
            executor.run(task)
    for task in planned.tasks.values():
        if isinstance(task, StreamTask):
            editors[task.method.editor.name], edited = executor.editor_of(task), tuple(task.chunk.cases)
    return next(iter(editors.values())).model, editors, edited


def editing(editor: Editor, cases: Sequence[Case], counts: Sequence[int], times: int, top: float) -> dict[str, Any]:
    """Seconds an edit by the number of edits, and how they are spent at the largest."""
    requests = [case.request() for case in cases]
    editor.edit_each(requests[:1])  # what is made once
    spent, memory = dict[int, Spent](), dict[str, int]()
    for count in counts:
        reset_resident_peak()
        memory[str(count)] = peak_mb(editor.edit_each(requests[:count]))
        spent[count] = measure(editor.model, partial(editor.edit_each, requests[:count]), 1 if count >= MANY else times)
    each = {count: at.seconds / count for count, at in spent.items()}
    return {"seconds_an_edit": {str(count): round(seconds, 5) for count, seconds in each.items()},
            "first_by_last": round(each[min(counts)] / each[max(counts)], 2),
            "peak_mb": memory,
            **_described(spent[max(counts)], max(counts), top)}


def scoring(model: LanguageModel, cases: Sequence[Case], editors: dict[str, Editor], times: int,
            top: float) -> dict[str, Any]:
    """Seconds a case, unedited and under each editor's patches: alone, and where another edit of the lowest block was
    scored before, so that what enters the edited one is kept."""
    observations, _ = baseline(model, cases)
    before = {each.case_id: each for each in observations}
    unedited = measure(model, partial(baseline, model, cases), times)
    loop = measure(model, partial(ask_one_by_one, model, cases), times).seconds / len(cases)
    found = {"loop": {"seconds_a_case": round(loop, 5), "questions": sum(len(each.outputs) for each in observations)},
             "unedited": {"seconds_a_case": round(unedited.seconds / len(cases), 5),
                          "loop_by_it": round(loop * len(cases) / unedited.seconds, 2),
                          **_described(unedited, len(cases), top)}}
    for name, editor in editors.items():
        edited = [Edited(case, patch, EditedFacts.of([case])) for case, patch
                  in zip(cases, editor.edit_each([case.request() for case in cases]), strict=True)]
        model.kept = None
        alone = measure(model, partial(judge, model, edited, before), times)
        model.kept = KeptStates()
        judge(model, edited, before)
        again = measure(model, partial(judge, model, edited, before), times)
        model.kept = None
        found[name] = {"seconds_a_case": round(alone.seconds / len(cases), 5),
                       "seconds_a_case_kept": round(again.seconds / len(cases), 5),
                       "loop_by_it": round(loop * len(cases) / alone.seconds, 2),
                       "loop_by_kept": round(loop * len(cases) / again.seconds, 2),
                       **_described(alone, len(cases), top)}
    return found


def _described(spent: Spent, count: int, top: float) -> dict[str, Any]:
    return {"gflop": round(spent.flops / count / 1e9, 3), "gflop_real": round(spent.real_flops / count / 1e9, 3),
            "padding": round(spent.positions / spent.real_positions, 3) if spent.real_positions else None,
            "share_of_peak": round(spent.real_flops / spent.seconds / top, 3) if spent.seconds else None}


def main(out: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")],
         editors: Annotated[str, typer.Option(help="Editors, by commas.")] = ",".join(NAMES),
         counts: Annotated[str, typer.Option(help="Numbers of edits made at once, by commas.")] = "1,10,100",
         cases: Annotated[int, typer.Option(help="Cases that are scored.")] = 25,
         times: Annotated[int, typer.Option(help="How often each is measured; 100 edits are made once.")] = 3) -> None:
    """Measure each editor and scoring, one after another."""
    torch.set_num_threads(1)
    numbers = [int(count) for count in counts.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        model, made, facts = prepare(editors.split(","), max(*numbers, cases), Path(folder))
        top = peak(model)
        edits = {name: editing(editor, facts, numbers, times, top) for name, editor in made.items()}
        scores = scoring(model, facts[:cases], made, times, top)
        top = max(top, peak(model))
    found = {"threads": 1, "peak_gflops": round(top / 1e9, 1), "editing": edits, "scoring": scores}
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
