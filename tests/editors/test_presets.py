"""The presets of the real models, field by field: as published, knowingly other, or without a counterpart.

Published values stand here as they were read from the files that are named:

    rome       github.com/kmeng01/rome, 0874014: hparams/{ROME,FT,KN}, baselines/{ft,kn}, rome/compute_v.py
    memit      github.com/kmeng01/memit, 80426fd: hparams/MEMIT, memit/{memit_main,compute_z}.py
    mend       github.com/eric-mitchell/mend, e04fdb9: config/{config,alg/mend,alg/efk,model/*}.yaml, algs/efk.py
    serac      github.com/eric-mitchell/serac, c963a39: config/{config,alg/rep}.yaml, scripts/main.sh
    t-patcher  github.com/ZeroYuHuang/Transformer-Patcher, 93ff458: src/utils.py, scripts/{main,T-patch}.py, src/models
    calinet    github.com/dqxiu/CaliNet, 8c9cfd5: train_calinet/bash/t5_train_kb_f.sh
    easyedit   github.com/zjunlp/EasyEdit, 14cea82: hparams/{FT,KN,MEND,KE,SERAC}/{gpt-j-6B,t5-3B}.yaml and, for models
               of today, hparams/{ROME,MEMIT,FT,KN}, hparams/TRAINING/{MEND,SERAC}, models/{rome,memit}/compute_*.py
    paper      Yao et al. 2023, appendix A

The paper took the defaults of the methods' own code, so those count where EasyEdit's later files have others: KN's
threshold on GPT-J (0.1), FT on T5 (layers 0 and 21, 50 steps), KE's and MEND's 100,000 batches in all.
"""

from __future__ import annotations

import pytest
import torch
from support.families import tiny, tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPTJConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    T5Config,
)

from editors import EDITORS, get_editor, preset, resolve_config
from editors.core.errors import InputError
from editors.core.models.model import LanguageModel

PAPERS = {
    "gpt-j": GPTJConfig(),  # the library's defaults are the 6B model's shape
    "t5-xl": T5Config(d_model=2048, d_ff=5120, num_layers=24, num_heads=32, feed_forward_proj="gated-gelu",
                      tie_word_embeddings=False),
    "t5-3b": T5Config(d_model=1024, d_kv=128, d_ff=16384, num_layers=24, num_heads=32)}
# Sizes of the configurations that stand beside the weights on the hub.
TODAYS = {
    "llama-2-7b": LlamaConfig(),  # the library's defaults are its shape
    "llama-3-8b": LlamaConfig(vocab_size=128_256, intermediate_size=14_336, num_key_value_heads=8),
    "mistral-7b": MistralConfig(),
    "qwen2.5-7b": Qwen2Config(vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28,
                              num_attention_heads=28, num_key_value_heads=4),
    "gpt2-xl": GPT2Config(n_embd=1600, n_layer=48, n_head=25)}
MODELS = {**PAPERS, **TODAYS}

# mend and serac: `max_iters`, `val_interval` and `early_stop_patience` count batches, `accumulate_bs` of which are a
# step of the optimiser. Of a batch of two, with `n_edits: 1`, one record is edited, the other asked for locality.
BATCHES = 10
LAST_THREE, LAST_TWO = (25, 26, 27), (22, 23)
HYPER = {"steps": 1_000_000 // BATCHES, "batch_size": 2 - 1, "accumulate": BATCHES, "clip": 100.0,
         "validate_every": 5000 // BATCHES, "validation_examples": 500, "patience": 20_000 // BATCHES,
         "edit_weight": 0.1, "locality_weight": 1.0, "unchanged": 1, "outer": "rephrase",
         "swapped": 0.0, "decay": False}
T5_HYPER = {"layers": LAST_TWO, "encoder_layers": LAST_TWO}
GPTJ_HYPER = {"layers": LAST_THREE, "encoder_layers": ()}
FT = {"layers": (21,), "steps": 25, "lr": 5e-4, "stop_loss": 1e-2, "batch_size": 128, "bias": True,
      "norm_constraint": None}  # rome: FT/EleutherAI_gpt-j-6B_unconstr.json; the paper, for both models
KN = {"steps": 20, "threshold": 0.2, "old_scale": -2.0, "new_scale": 1.0, "embedding": "input", "target": "all",
      "signed": False}  # rome: KN/gpt2-xl.json, knowledge_neurons.py; the paper takes its re-implementation
CALINET = {"slots": 64, "lr": 1e-2, "optimizer": "adafactor", "objective": "target_new"}
T_PATCHER = {"max_neurons": 5, "steps": 2000, "lr": 1e-2, "weight_decay": 0.01, "clip": 5.0, "plateau": (0.5, 1, 0.05),
             "check_every": 25, "check_from": 100, "patience": 1, "improvement": 1e-3, "label_smoothing": 0.1,
             "activation_weight": 1.0, "memory_weight": 10.0,  # main.py sets mlc to 10 for zsRE
             "top_activations": 5, "top_memories": 1000, "copies": 8, "amplify": 10.0, "remember": True,
             "memory_queries": 40_000}
MEND = {**HYPER, "learning_rate": 1e-6, "alpha": 1e-4, "alpha_learning_rate": 1e-4, "rank": 1920, "sign": "+",
        "norm": True, "joint_loss": "mean"}
KE = {**HYPER, "learning_rate": 1e-5, "lstm_width": 512, "condition_width": 768, "hidden_width": 512, "max_scale": 1.0,
      "condition": "answers"}  # easyedit: what it hands over is "old >> new || prompt"
SERAC = {"classifier": "distilbert-base-cased", "steps": 1_000_000 // BATCHES, "batch_size": 10, "accumulate": BATCHES,
         "learning_rate": 1e-5, "clip": 100.0, "validate_every": 5000 // BATCHES, "validation_examples": 500,
         "patience": 40_000 // BATCHES, "edit_weight": 0.1, "scope_weight": 1.0, "unchanged": 1, "swapped": 0.0,
         "decay": False}
VALUE = {"lr": 0.5, "weight_decay": 0.5, "kl": 0.0625, "stop_loss": 5e-2}

PUBLISHED = {
    ("ft", "gpt-j"): {**FT, "objective": "prompt_last"},
    ("ft", "t5-xl"): FT, ("ft", "t5-3b"): FT,
    ("rome", "gpt-j"): {**VALUE, "layer": 5, "steps": 20, "clamp": 4.0, "contexts": ((5, 10), (10, 10)),
                        "covariance": True},
    ("memit", "gpt-j"): {**VALUE, "layers": (3, 4, 5, 6, 7, 8), "steps": 25, "clamp": 0.75, "contexts": ((10, 5),),
                         "context_starts": ("The", "Therefore", "Because", "I", "You"), "moment_weight": 15_000.0},
    ("kn", "gpt-j"): KN, ("kn", "t5-xl"): KN, ("kn", "t5-3b"): KN,
    ("calinet", "gpt-j"): {**CALINET, "layers": (26, 27)},  # the paper: the last two
    ("calinet", "t5-xl"): {**CALINET, "layers": LAST_TWO}, ("calinet", "t5-3b"): {**CALINET, "layers": LAST_TWO},
    ("t-patcher", "gpt-j"): T_PATCHER, ("t-patcher", "t5-xl"): T_PATCHER, ("t-patcher", "t5-3b"): T_PATCHER,
    ("mend", "gpt-j"): {**MEND, **GPTJ_HYPER},
    ("mend", "t5-xl"): {**MEND, **T5_HYPER}, ("mend", "t5-3b"): {**MEND, **T5_HYPER},
    ("ke", "gpt-j"): {**KE, **GPTJ_HYPER}, ("ke", "t5-xl"): {**KE, **T5_HYPER}, ("ke", "t5-3b"): {**KE, **T5_HYPER},
    ("serac", "gpt-j"): {**SERAC, "side_model": "architext/gptj-162M", "entry": "question"},  # models: the paper
    ("serac", "t5-xl"): {**SERAC, "side_model": "google-t5/t5-small"},
    ("serac", "t5-3b"): {**SERAC, "side_model": "google-t5/t5-small"},
}

EE_FT = {**FT, "batch_size": 1, "objective": "prompt_last"}
EE_VALUE = {**VALUE, "steps": 25, "weight_decay": 1e-3, "clamp": 4.0}
EE_ROME = {**EE_VALUE, "layer": 5, "contexts": ((5, 10), (10, 10)), "covariance": False}  # mom2_adjustment: false
EE_MEMIT = {**PUBLISHED["memit", "gpt-j"], **EE_VALUE, "layers": (4, 5, 6, 7, 8), "moment_weight": 15_000.0}
EE_KN = {field: value for field, value in KN.items() if field != "steps"}
EE_MEND = {field: value for field, value in MEND.items() if field != "outer"} | {
    "encoder_layers": (), "steps": 100_000 // BATCHES, "validate_every": 1000 // BATCHES, "patience": 30_000 // BATCHES}
EE_SERAC = {**SERAC, "steps": 100_000 // BATCHES, "validate_every": 1000 // BATCHES, "validation_examples": 1000,
            "entry": "question"}
XL = {"layers": (45, 46, 47), "encoder_layers": ()}  # mend: model/gpt2xl.yaml
PUBLISHED |= {
    **{("rome", model): EE_ROME for model in TODAYS}, **{("memit", model): EE_MEMIT for model in TODAYS},
    **{("kn", model): EE_KN for model in TODAYS},
    ("ft", "llama-2-7b"): {**EE_FT, "layers": (21,)}, ("ft", "llama-3-8b"): {**EE_FT, "layers": (21,)},
    ("ft", "mistral-7b"): {**EE_FT, "layers": (21,), "norm_constraint": 5e-5},
    ("ft", "qwen2.5-7b"): {**EE_FT, "layers": (27,)},
    ("mend", "llama-2-7b"): {**EE_MEND, "layers": (29, 30, 31)},
    ("mend", "llama-3-8b"): {**EE_MEND, "layers": (29, 30, 31)},
    ("mend", "mistral-7b"): {**EE_MEND, "layers": (29, 30, 31)},
    ("mend", "qwen2.5-7b"): {**EE_MEND, "layers": (25, 26, 27), "steps": 20_000 // BATCHES,
                             "patience": 4000 // BATCHES},
    ("serac", "llama-2-7b"): {**EE_SERAC, "side_model": "JackFram/llama-160m", "patience": 30_000 // BATCHES},
    ("serac", "gpt2-xl"): {**EE_SERAC, "side_model": "openai-community/gpt2"},
    # of the authors themselves: rome, FT/gpt2-xl_constr.json, ROME/ and KN/; memit; mend
    ("ft", "gpt2-xl"): {**FT, "objective": "prompt_last", "layers": (0,), "norm_constraint": 5e-4},
    ("rome", "gpt2-xl"): {**PUBLISHED["rome", "gpt-j"], "layer": 17},
    ("memit", "gpt2-xl"): {**PUBLISHED["memit", "gpt-j"], "layers": (13, 14, 15, 16, 17), "steps": 20,
                           "moment_weight": 20_000.0},
    ("kn", "gpt2-xl"): KN, ("mend", "gpt2-xl"): {**MEND, **XL}, ("ke", "gpt2-xl"): {**KE, **XL},
}
#: Of what nothing is published, so that no preset has it.
UNPUBLISHED = {(editor, model) for model in TODAYS for editor in ("calinet", "t-patcher", "ke", "serac")
               } - PUBLISHED.keys()

#: Editor and field -> what is published, what stands in the presets, and why.
T5_ALONE = ("t5-xl", "t5-3b")
GATED = ("llama-2-7b", "llama-3-8b", "mistral-7b", "qwen2.5-7b")
DIFFERS = {
    ("ft", "objective", T5_ALONE): ("prompt_last", "target_new", "easyedit reads all tokens at one position, which in "
                                    "a decoder that starts with nothing is not the prompt's last"),
    ("rome", "key", tuple(MODELS)): ("original", "consistent", "the first key explodes (Gupta et al. 2024)"),
    ("kn", "mode", tuple(MODELS)): ("reference", "fixed", "the port reads old tokens where they are not predicted; "
                                    "table 2 has both"),
    ("kn", "steps", GATED): (1, 20, "with one step, the gradient is taken at no activation; Dai et al. 2022 take 20"),
    ("mend", "outer", GATED): ("inner", "rephrase", "EasyEdit's trainer asks for the edit's own prompt; Mitchell et "
                               "al. 2022 for a paraphrase"),
    ("calinet", "steps", tuple(MODELS)): (5000, 100, "those are for 100 facts together, these for one"),
    ("calinet", "zero_values", tuple(MODELS)): (False, True, "a random start disturbs the model before the first step"),
    ("t-patcher", "margins", tuple(MODELS)): ((3.0, -3.0), (0.0, 0.0), "the defaults are not passed on where the task "
                                              "is zsRE, whose model is sequence-to-sequence"),
    ("serac", "entry", T5_ALONE): ("answered", "question", "ours: an edit's own prompt is at distance 0"),
    ("serac", "negatives", tuple(MODELS)): ("own", "batch", "ours: more of them"),
}

#: Fields without a counterpart: memory, of which results are independent, and what only exists here.
OWN = {
    "ft": {"edits_at_once"}, "calinet": {"edits_at_once", "stop_loss", "batch_size"}, "rome": {"batch_tokens"},
    "memit": {"batch_tokens"}, "kn": {"batch_tokens"}, "t-patcher": {"edits_at_once", "batch_tokens",
                                                                    "memory_unchanged"},
    "mend": {"edits_at_once", "cache_bytes", "statistics_examples"}, "ke": {"edits_at_once", "cache_bytes"},
    "serac": {"classifier_layers", "classifier_width", "side_layers"},  # of models that are made, not loaded
}


def differing(editor, model):
    return {field: (theirs, ours) for (name, field, models), (theirs, ours, reason) in DIFFERS.items()
            if name == editor and model in models and reason}


def test_every_preset_of_a_real_model_is_held_to_what_is_published():
    assert set(PUBLISHED) | UNPUBLISHED == {
        (editor, model) for editor in EDITORS for model in MODELS if editor != "identity"
        and (model not in T5_ALONE or not get_editor(editor).decoder_only)}


@pytest.mark.parametrize(("editor", "model"), PUBLISHED, ids="-".join)
def test_a_preset_is_as_published_field_by_field(editor, model):
    found = resolve_config(editor, MODELS[model]).model_dump()
    differs, own = differing(editor, model), OWN[editor]
    published = PUBLISHED[editor, model]
    assert not published.keys() & differs.keys() and not own & (published.keys() | differs.keys())
    assert found.keys() == published.keys() | differs.keys() | own, "say of every field what is published"
    assert {field: found[field] for field in published} == published
    assert {field: found[field] for field in differs} == {field: ours for field, (_, ours) in differs.items()}
    assert all(theirs != ours for theirs, ours in differs.values())


@pytest.mark.parametrize(("editor", "model"), sorted(UNPUBLISHED), ids="-".join)
def test_where_nothing_is_published_there_is_no_preset(editor, model):
    assert not preset(editor, MODELS[model])


@pytest.mark.parametrize("model", MODELS)
def test_a_preset_is_found_by_type_and_sizes_alone(model):
    found, config = preset("ft", MODELS[model]), MODELS[model]
    said = {field: value for field, value in config.to_dict().items() if field != "model_type"}
    other = AutoConfig.for_model(config.model_type, **said, name_or_path="mine")
    assert found and preset("ft", other) == found
    other.hidden_size += 64
    assert preset("ft", other) == {}


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "gpt2"])
def test_a_model_of_the_same_type_and_other_sizes_has_to_be_told_its_layers(kind):
    with pytest.raises(InputError, match="layer: required, because there is no preset"):
        resolve_config("rome", tiny(kind).module.config)


@pytest.mark.parametrize("model", TODAYS)
def test_what_a_preset_edits_is_in_the_model(model):
    config = MODELS[model]
    with torch.device("meta"):  # all modules, no weights
        whole = LanguageModel(AutoModelForCausalLM.from_config(config), tokenizer(), model, model)
    inner = 4 * config.n_embd if model == "gpt2-xl" else config.intermediate_size
    for editor in ("ft", "rome", "memit", "mend"):
        layers = resolve_config(editor, config).edited_layers
        assert layers and {whole.matrix(whole.down_path(layer)) for layer in layers} == {(config.hidden_size, inner)}
