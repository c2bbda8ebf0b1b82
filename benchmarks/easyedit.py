"""EasyEdit's own code for one method, on a copy of our model: of a checkout, the methods and one function are loaded.

Of its requirements, MEND needs `higher`; what else its packages import is left out.
"""

from __future__ import annotations

import ast
import functools
import importlib
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from editors import Patch
from editors.core.artefacts import Artefact
from editors.core.editor import Editor
from editors.core.methods.hypernetwork import matrices
from editors.core.models.loading import find_model
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Dense
from evaluators.cases import Case

PACKAGES = ("", ".models", ".util", ".trainer", ".trainer.algs")  # each without what its __init__ imports
#: What MEND's hyperparameters are beside the network's: of training, which is done, and the published network's kind.
MEND_SETTINGS = {
    "model_class": "gptj", "tokenizer_class": "", "tokenizer_name": "", "lr": 0.0, "edit_lr": 0.0, "lr_lr": 0.0,
    "lr_scale": 1.0, "seed": 0, "debug": False, "cedit": 0.0, "cloc": 0.0, "cbase": 0.0, "dropout": 0.0,
    "train_base": False, "no_grad_layers": None, "one_sided": False, "n_hidden": 1, "hidden_dim": None, "init": "id",
    "combine": True, "x_only": False, "delta_only": False, "act": "relu", "mlp_class": "IDMLP", "shared": True,
    "results_dir": "", "model_save_pt": 0, "silent": True, "log_interval": 0, "eval_log_interval": 0,
    "final_eval": False, "val_interval": 0, "early_stop_patience": 0, "early_stop_key": "", "eval_only": True,
    "half": False, "save": False, "verbose": False, "val_batch_size": 1, "accumulate_bs": 1, "val_steps": 0,
    "opt": "Adam", "grad_clip": 0.0, "alg_name": "MEND"}
#: Theirs of our names, where they differ.
PARTS = {"scale": "mode_scale.weight", "shift": "mode_shift.weight"}


class Peer:
    """EasyEdit's code for one method, on a copy of our model."""

    def __init__(self, checkout: Path, editor: Editor, contexts: Sequence[str]) -> None:
        source, name = checkout / "easyeditor", editor.name
        for package in PACKAGES:
            module = types.ModuleType(f"easyeditor{package}")
            module.__path__ = [str(source.joinpath(*package.split(".")[1:]))]
            sys.modules[module.__name__] = module
        sys.modules.setdefault("hydra", types.ModuleType("hydra"))  # imported, and not used
        if name == "mend":
            vars(sys.modules["easyeditor.trainer"])["MEND"] = importlib.import_module(
                "easyeditor.trainer.algs.MEND").MEND
        self._code: Any = importlib.import_module(f"easyeditor.models.{name}.{name}_main")
        self._right = _function(source / "evaluate" / "evaluate_utils.py", "test_prediction_acc", "slice_list")
        self._model, self._tokenizer = _copy(editor.model)
        self._tokenizer.padding_side = "left" if name == "ft" else "right"
        self._prompt = _whole if name in ("ft", "mend") else _with_gap
        make = {"rome": self._rome, "memit": self._memit, "ft": self._ft, "mend": self._mend}[name]
        self.settings = make(editor, contexts)
        self._apply: Callable[..., Any] = getattr(self._code, f"apply_{name}_to_model")

    def edit(self, case: Case) -> Patch:
        """What it changes in the weights, which are put back."""
        asked = {"prompt": self._prompt(case), "subject": case.subject, "target_new": case.target_new,
                 "case_id": case.id}
        _, before = self._apply(self._model, self._tokenizer, [asked], self.settings, return_orig_weights=True)
        weights, changes = dict(self._model.named_parameters()), dict[str, Tensor]()
        with torch.no_grad():
            for name, old in before.items():
                changes[name] = (weights[name] - old).clone()
                weights[name].copy_(old)
        paths = dict.fromkeys(name.rpartition(".")[0] for name in changes)
        return Patch(tuple(Dense(path, changes[f"{path}.weight"], changes.get(f"{path}.bias")) for path in paths))

    def score(self, case: Case) -> None:
        """Asks what EasyEdit asks of an edit, the edit, its paraphrases and its neighbours each at once; the weights do
        not matter for what it costs."""
        ask = functools.partial(self._right, self._model, self._tokenizer, self.settings)
        for said in ((case.prompt,), case.paraphrases):
            ask(list(said), [case.target_new] * len(said), "cpu")
        near = case.neighbourhood
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

    def _mend(self, editor: Editor, contexts: Sequence[str]) -> Any:
        config, artefact = editor.config, editor.artefact
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "archive"
            torch.save({"model": {**network(artefact, config.sign), "model_config": self._model.config}}, archive)
            settings = self._code.MENDHyperParams(
                **MEND_SETTINGS, archive=str(archive), norm=config.norm, rank=config.rank, device="cpu",
                model_name="gptj", inner_params=[f"{matrix.path}.weight" for matrix in matrices(editor.model, config)])
            executor = self._code.MendRewriteExecutor()
            executor.init_model(self._model, self._tokenizer, settings)
        self._code.apply_mend_to_model = executor.apply_to_model
        return settings


def network(artefact: Artefact, sign: str) -> dict[str, Tensor]:
    """A trained MEND network by EasyEdit's names, which are its authors'."""
    tensors = {name: tensor.float() for name, tensor in artefact.tensors.items()}
    learned = {"edit_lrs": tensors["alpha"] if sign == "+" else -tensors["alpha"]}
    for name, tensor in tensors.items():
        if name == "alpha":
            continue
        _, shape, part = name.split(".", 2)
        inputs, _, outputs = shape.partition(" to ")
        own = f"mend.({inputs}, {outputs})"
        if part in ("mean", "std"):  # of [input; gradient]
            learned[f"{own}.u_{part}"], learned[f"{own}.v_{part}"] = tensor.split([int(inputs), int(outputs)])
        else:
            layer, what = part.rsplit(".", 1)
            learned[f"{own}.mlp.{layer}.{PARTS.get(what, what)}"] = tensor
        # what they go on counting while they train
        learned |= {f"{own}.u_s": torch.zeros(int(inputs)), f"{own}.v_s": torch.zeros(int(outputs)),
                    f"{own}.k": torch.ones(1)}
    return learned


def _whole(case: Case) -> str:
    return case.prompt


def _with_gap(case: Case) -> str:
    """The prompt with `{}` for the subject."""
    request = case.request()
    return case.prompt[:request.subject_start or 0] + "{}" + case.prompt[request.subject_end:]


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
