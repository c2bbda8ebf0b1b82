"""Our edits and scores beside EasyEdit's, of the same cases with the same settings, contexts and second moments.

    python -m benchmarks.peer --easyedit CHECKOUT --out benchmarks/peer.json

CPU seconds of one thread, in turns of a few cases, so that what else the machine does falls on both. Theirs asks one
prompt after another, as its evaluation does; both are asked about edit, paraphrases and neighbours. What either edits
is scored by our scorer, and `difference` is how far the changes of weights are apart, by the norm of theirs. The
checkout is one of https://github.com/zjunlp/EasyEdit; of it the three methods and one function are loaded.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import io
import json
import statistics
import sys
import time
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from editors import Patch, Resources, get_editor, load_model, resolve_config
from editors.core.editor import Editor
from editors.core.models.loading import find_model
from editors.core.models.model import LanguageModel
from editors.core.models.statistics import second_moments
from editors.core.patches.patch import Dense, LowRank
from evaluators.cases import Case, Edited, EditedFacts
from evaluators.datasets import TESTBED_CORPUS, DatasetSpec, load_dataset, read_corpus
from evaluators.models import model_path
from evaluators.scoring.judge import baseline, judge
from evaluators.scoring.metrics import Score
from evaluators.scoring.observe import Observation

METHODS = ("rome", "memit", "ft")
SCORED = ("reliability.token", "generality.token", "locality.token")
#: Where our presets do as the papers say, and theirs can do as they do: what makes the two alike.
ALIKE: dict[str, dict[str, Any]] = {"rome": {"covariance": False, "key": "original"}, "memit": {},
                                    "ft": {"objective": "target_new", "bias": True}}


class Peer:
    """EasyEdit's code for one method, on a copy of our model."""

    def __init__(self, checkout: Path, editor: Editor, contexts: Sequence[str]) -> None:
        source, name = checkout / "easyeditor", editor.name
        for package in ("easyeditor", "easyeditor.models", "easyeditor.util"):  # without what their __init__ imports
            module = types.ModuleType(package)
            module.__path__ = [str(source.joinpath(*package.split(".")[1:]))]
            sys.modules[package] = module
        self._code: Any = importlib.import_module(f"easyeditor.models.{name}.{name}_main")
        self._right = _function(source / "evaluate" / "evaluate_utils.py", "test_prediction_acc", "slice_list")
        self._model, self._tokenizer = _copy(editor.model)
        self._tokenizer.padding_side = "left" if name == "ft" else "right"
        self.settings = {"rome": self._rome, "memit": self._memit, "ft": self._ft}[name](editor, contexts)
        self._apply: Callable[..., Any] = getattr(self._code, f"apply_{name}_to_model")

    def edit(self, case: Case) -> Patch:
        """What it changes in the weights, which are put back."""
        start, end = (request := case.request()).subject_start or 0, request.subject_end
        prompt = case.prompt if self._code.__name__.endswith("ft_main") else (
            case.prompt[:start] + "{}" + case.prompt[end:])
        asked = {"prompt": prompt, "subject": case.subject, "target_new": case.target_new, "case_id": case.id}
        _, before = self._apply(self._model, self._tokenizer, [asked], self.settings, return_orig_weights=True)
        weights, changes = dict(self._model.named_parameters()), dict[str, torch.Tensor]()
        with torch.no_grad():
            for name, old in before.items():
                changes[name] = (weights[name] - old).clone()
                weights[name].copy_(old)
        paths = dict.fromkeys(name.rpartition(".")[0] for name in changes)
        return Patch(tuple(Dense(path, changes[f"{path}.weight"], changes.get(f"{path}.bias")) for path in paths))

    def score(self, case: Case) -> None:
        """Asks what EasyEdit asks of an edit; the weights do not matter for what it costs."""
        said, near = [case.prompt, *case.paraphrases], case.neighbourhood
        ask = functools.partial(self._right, self._model, self._tokenizer, self.settings)
        ask(said, [case.target_new] * len(said), "cpu")
        ask([probe.prompt for probe in near], [probe.target for probe in near], "cpu", locality=True)

    def _common(self, editor: Editor) -> dict[str, Any]:
        model = editor.model
        paths = {"rewrite_module_tmp": model.down_path(0), "layer_module_tmp": model.block_path(0),
                 "mlp_module_tmp": model.ffn_path(0)}
        norm = f"{model.layout('decoder').backbone}.{model.layout('decoder').norm}"
        return {**{name: path.replace(".0", ".{}", 1) for name, path in paths.items()}, "attn_module_tmp": "",
                "ln_f_module": norm, "lm_head_module": "lm_head", "device": "cpu", "model_name": "peer"}

    def _value(self, editor: Editor) -> dict[str, Any]:
        config = editor.config
        return {"fact_token": "subject_last", "v_num_grad_steps": config.steps, "v_lr": config.lr,
                "v_loss_layer": editor.model.depth - 1, "v_weight_decay": config.weight_decay,
                "clamp_norm_factor": config.clamp, "kl_factor": config.kl, "mom2_dataset": "", "mom2_n_samples": 0,
                "mom2_dtype": "float32", "stats_dir": "", **self._common(editor)}

    def _rome(self, editor: Editor, contexts: Sequence[str]) -> Any:
        self._code.CONTEXT_TEMPLATES_CACHE = [f"{context}{{}}" for context in contexts]
        return self._code.ROMEHyperParams(layers=[editor.config.layer], mom2_adjustment=False, alg_name="ROME",
                                          context_template_length_params=[], **self._value(editor))

    def _memit(self, editor: Editor, contexts: Sequence[str]) -> Any:
        self._code.CONTEXT_TEMPLATES_CACHE = [["{}"], [f"{context}{{}}" for context in contexts[1:]]]
        name = self._model.config._name_or_path.replace("/", "_")
        ridges = editor.provenance["ridge"]  # of the mean diagonal: where moments are singular, theirs has none
        self._code.COV_CACHE = {(name, path): moment.mean + ridges[path] * moment.mean.diagonal().mean()
                                * torch.eye(len(moment.mean), dtype=moment.mean.dtype)
                                for path, moment in editor.resources.statistics.items()}
        return self._code.MEMITHyperParams(layers=list(editor.config.layers), layer_selection="all", alg_name="MEMIT",
                                           mom2_adjustment=True, mom2_update_weight=editor.config.moment_weight,
                                           **self._value(editor))

    def _ft(self, editor: Editor, contexts: Sequence[str]) -> Any:
        config = editor.config
        return self._code.FTHyperParams(layers=list(config.layers), num_steps=config.steps, lr=config.lr, kl_factor=0,
                                        weight_decay=0, norm_constraint=False, batch_size=1, alg_name="FT",
                                        objective_optimization="target_new", **self._common(editor))


def _function(file: Path, *names: str) -> Callable[..., Any]:
    """The first of some functions of a file, without what the others import."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    found: list[ast.stmt] = [each for each in body if isinstance(each, ast.FunctionDef) and each.name in names]
    device = importlib.import_module("easyeditor.util.device").normalize_device
    space: dict[str, Any] = {"torch": torch, "np": np, "typing": typing, "normalize_device": device}
    exec(compile(ast.Module(found, []), str(file), "exec"), space)
    function: Callable[..., Any] = space[names[0]]
    return function


def _copy(model: LanguageModel) -> tuple[Any, Any]:
    """The model and its tokenizer as the library loads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = find_model(model.name).folder.path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token_id = tokenizer.eos_token_id
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer


def compare(checkout: Path, model: LanguageModel, method: str, cases: Sequence[Case], block: int,
            tokens: int) -> dict[str, Any]:
    """Both sides in turns of so many cases; ours edits and scores those of a turn together, theirs each by itself."""
    make = get_editor(method)
    config = resolve_config(method, model.module.config, ALIKE[method])
    layers = make.statistics_layers(config)
    moments = second_moments(model, layers, read_corpus(TESTBED_CORPUS), tokens) if layers else {}
    editor = make(model, config, Resources(moments))
    contexts = getattr(editor, "contexts", [""])
    peer = Peer(checkout, editor, contexts)
    before = {each.case_id: each for each in baseline(model, cases)[0]}
    seconds = {side: {"edit": 0.0, "score": 0.0} for side in ("ours", "theirs")}
    scores: dict[str, list[Score]] = {"ours": [], "theirs": []}
    apart: list[float] = []
    for start in range(0, len(cases), block):
        part = cases[start: start + block]
        with _timed(seconds["theirs"], "edit"):
            theirs = [peer.edit(case) for case in part]
        with _timed(seconds["theirs"], "score"):
            for case in part:
                peer.score(case)
        with _timed(seconds["ours"], "edit"):
            ours = editor.edit_each([case.request() for case in part])
        with _timed(seconds["ours"], "score"):
            scores["ours"] += _judged(model, part, ours, before)
        scores["theirs"] += _judged(model, part, theirs, before)
        apart += map(_difference, ours, theirs)
    for of in seconds.values():
        of["edit and score"] = of["edit"] + of["score"]
    return {"cases": len(cases), "settings": config.model_dump(mode="json"),
            "seconds_a_case": {side: {what: round(taken / len(cases), 4) for what, taken in of.items()}
                               for side, of in seconds.items()},
            "speedup": {what: round(taken / seconds["ours"][what], 2)
                              for what, taken in seconds["theirs"].items()},
            "scores": {side: _means(found) for side, found in scores.items()},
            "difference": {"median": statistics.median(apart), "most": max(apart)}}


@contextlib.contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Adds the CPU seconds of the block, of which nothing is printed."""
    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        yield
    seconds[what] += time.process_time() - began


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
         block: Annotated[int, typer.Option(help="Cases of a turn.")] = 10,
         tokens: Annotated[int, typer.Option(help="Of the built-in text, for second moments.")] = 30_000) -> None:
    """Compare each method, one after another."""
    torch.set_num_threads(1)
    ours = load_model(model_path(model))
    taken = load_dataset(DatasetSpec(name="testbed-cloze", limit=cases)).cases
    # What EasyEdit asks, and no more: without rivals of the answers, and without what is asked beyond neighbours.
    bare = [case.model_copy(update={"target_true": None, "portability": (), "attributes": ()}) for case in taken]
    found = {method: compare(easyedit, ours, method, bare, block, tokens) for method in methods.split(",")}
    out.write_text(json.dumps({"threads": 1, "model": model, "methods": found}, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
