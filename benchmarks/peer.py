"""Our edits and scores beside EasyEdit's, of the same cases with the same settings, contexts, moments and networks.

    python -m benchmarks.peer --easyedit CHECKOUT --out benchmarks/peer.json

CPU seconds of one thread, in turns, so that what else the machine does falls on both, and of several rounds the
quickest. Both are asked the same of every case, edited and unedited: the edit, its paraphrases and its neighbours. As
in a campaign, states below the edits are kept: `score` is of a round that finds none, `score, states kept` of one that
asks what was asked of an earlier editor. What either edits is scored by our scorer, and `difference` is how far the
changes of weights are apart, by the norm of theirs. The checkout is one of https://github.com/zjunlp/EasyEdit.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.easyedit import Peer
from editors import Patch, Resources, get_editor, load_model, resolve_config
from editors.core.artefacts import Artefact
from editors.core.editor import Editor
from editors.core.models.kept import KeptStates
from editors.core.models.model import LanguageModel
from editors.core.models.statistics import second_moments
from editors.core.patches.patch import Dense, LowRank
from evaluators.cases import Case, Edited, EditedFacts
from evaluators.datasets import TESTBED_CORPUS, DatasetSpec, load_dataset, read_corpus
from evaluators.models import model_path
from evaluators.scoring.judge import baseline, judge
from evaluators.scoring.metrics import Score
from evaluators.scoring.observe import Observation
from evaluators.testbed.learned import find_learned

METHODS = ("rome", "memit", "ft", "mend")
SCORED = ("reliability.token", "generality.token", "locality.token")
#: Where our presets do as the papers say, and theirs can do as they do: what makes the two alike.
ALIKE: dict[str, dict[str, Any]] = {"rome": {"covariance": False, "key": "original"}, "memit": {},
                                    "ft": {"objective": "target_new", "bias": True}, "mend": {}}
SIDES = ("ours", "theirs")


def prepare(model: LanguageModel, method: str, tokens: int) -> Editor:
    """Our editor, with the second moments of so many tokens where it needs some, and the shipped network."""
    make = get_editor(method)
    config = resolve_config(method, model.module.config, ALIKE[method])
    layers = make.statistics_layers(config)
    moments = second_moments(model, layers, read_corpus(TESTBED_CORPUS), tokens) if layers else {}
    learned = find_learned(method, model.digest) if make.trained else None
    return make(model, config, Resources(moments, Artefact.load(learned) if learned else None))


def compare(checkout: Path, model: LanguageModel, method: str, cases: Sequence[Case], rounds: int,
            tokens: int) -> dict[str, Any]:
    """Both sides in turns; ours edits and scores all cases together, theirs each by itself."""
    editor = prepare(model, method, tokens)
    peer = Peer(checkout, editor, getattr(editor, "contexts", [""]))
    seconds: dict[str, dict[str, float]] = {side: {} for side in SIDES}
    for _ in range(rounds):
        model.kept = KeptStates()
        with _timed(seconds["theirs"], "unedited"):
            for case in cases:
                peer.score(case)
        with _timed(seconds["ours"], "unedited"):
            before = {each.case_id: each for each in baseline(model, cases)[0]}
        with _timed(seconds["theirs"], "edit"):
            theirs = [peer.edit(case) for case in cases]
        with _timed(seconds["ours"], "edit"):
            ours = editor.edit_each([case.request() for case in cases])
        with _timed(seconds["theirs"], "score"):
            for case in cases:
                peer.score(case)
        with _timed(seconds["ours"], "score"):
            found = _judged(model, cases, ours, before)
        with _timed(seconds["ours"], "score, states kept"):
            _judged(model, cases, ours, before)
    scores = {"ours": found, "theirs": _judged(model, cases, theirs, before)}
    seconds["theirs"]["score, states kept"] = seconds["theirs"]["score"]  # it keeps none
    for of in seconds.values():
        of["edit and score"] = of["edit"] + of["score"]
        of["edit and score, states kept"] = of["edit"] + of["score, states kept"]
        of["all"] = of["unedited"] + of["edit and score"]
    apart = list(map(_difference, ours, theirs))
    return {"cases": len(cases), "settings": editor.config.model_dump(mode="json"),
            "seconds_a_case": {side: {what: round(taken / len(cases), 4) for what, taken in of.items()}
                               for side, of in seconds.items()},
            "speedup": {what: round(seconds["theirs"][what] / taken, 2) for what, taken in seconds["ours"].items()},
            "scores": {side: _means(each) for side, each in scores.items()},
            "difference": {"median": statistics.median(apart), "most": max(apart)}}


@contextlib.contextmanager
def _timed(least: dict[str, float], what: str) -> Iterator[None]:
    """Notes the CPU seconds of the block, of which nothing is printed, where they are fewer than before."""
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        yield
    least[what] = min(least.get(what, float("inf")), time.process_time() - began)


def _judged(model: LanguageModel, cases: Sequence[Case], patches: Sequence[Patch],
            before: Mapping[str, Observation]) -> list[Score]:
    edited = [Edited(case, patch, EditedFacts.of([case])) for case, patch in zip(cases, patches, strict=True)]
    return judge(model, edited, before).scores


def _difference(ours: Patch, theirs: Patch) -> float:
    """‖ΔW - ΔW'‖ / ‖ΔW'‖ over all weights."""
    def changes(patch: Patch) -> dict[str, torch.Tensor]:
        return {term.module: term.weight if isinstance(term, Dense) else term.a @ term.b.T for term in patch.terms
                if isinstance(term, Dense | LowRank)}

    mine, other = changes(ours), changes(theirs)
    apart = sum(float((mine[path] - other[path]).square().sum()) for path in other)
    return float((apart / sum(float(change.square().sum()) for change in other.values())) ** 0.5)


def _means(scores: Sequence[Score]) -> dict[str, float]:
    values = {metric: [each.value for each in scores if each.metric == metric] for metric in SCORED}
    return {metric: round(100 * statistics.fmean(found), 2) for metric, found in values.items() if found}


def main(easyedit: Annotated[Path, typer.Option(help="A checkout of EasyEdit.", exists=True, file_okay=False)],
         out: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")],
         model: Annotated[str, typer.Option(help="A decoder-only model with presets.")] = "testbed-gptj",
         methods: Annotated[str, typer.Option(help="Methods, by commas.")] = ",".join(METHODS),
         cases: Annotated[int, typer.Option(help="Built-in cases that are edited.")] = 20,
         rounds: Annotated[int, typer.Option(help="How often all is done; the quickest counts.")] = 3,
         tokens: Annotated[int, typer.Option(help="Of the built-in text, for second moments.")] = 30_000) -> None:
    """Compare each method, one after another."""
    torch.set_num_threads(1)
    ours = load_model(model_path(model))
    taken = load_dataset(DatasetSpec(name="testbed-cloze", limit=cases)).cases
    # What EasyEdit asks, and no more: without rivals of the answers, and without what is asked beyond neighbours.
    bare = [case.model_copy(update={"target_true": None, "portability": (), "attributes": (), "unrelated": ()})
            for case in taken]
    found = {method: compare(easyedit, ours, method, bare, rounds, tokens) for method in methods.split(",")}
    out.write_text(json.dumps({"threads": 1, "model": model, "methods": found}, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
