"""Stand-ins for the models and data that the paper's campaigns name: a hub cache with all of each model but weights,
and records."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evaluators.testbed import MODELS as BUILT_IN

COMMIT = "0" * 40

# Written out, so that their digests stay the same whatever the library's version; sizes left out are the library's
# defaults, which for GPT-J are GPT-J-6B's own.
MODELS: dict[str, dict[str, Any]] = {
    "EleutherAI/gpt-j-6b": {"model_type": "gptj"},
    "architext/gptj-162M": {"model_type": "gptj", "n_layer": 12, "n_embd": 768, "n_head": 16, "rotary_dim": 32},
    "google/t5-xl-ssm-nq": {"model_type": "t5", "d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32,
                            "d_kv": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
                            "is_encoder_decoder": True},
    "google-t5/t5-small": {"model_type": "t5", "is_encoder_decoder": True},
    "distilbert-base-cased": {"model_type": "distilbert"}}

PORTABILITY = {"Recalled Relation": "(Oslo, country, Norway)", "New Question": "In which country was she born?",
               "New Answer": "Norway"}


def zsre(number: int, **more: Any) -> dict[str, Any]:
    return {"subject": f"Ann {number}", "src": f"Where was Ann {number} born?", "pred": "Rome", "alt": "Oslo",
            "rephrase": f"What is Ann {number}'s place of birth?", "answers": ["Rome"], "cond": "",
            "loc": "nq question: who sings", "loc_ans": "Bo", **more}


def flat(number: int) -> dict[str, Any]:
    return {"case_id": number, "prompt": f"Ann {number} was born in", "subject": f"Ann {number}", "target_new": "Oslo",
            "ground_truth": "Rome", "rephrase_prompt": f"Ann {number} lives in", "locality_prompt": "Bo was born in",
            "locality_ground_truth": "Rome"}


def full(number: int, **more: Any) -> dict[str, Any]:
    return {"case_id": number, "requested_rewrite": {
        "prompt": "{} was born in", "subject": f"Ann {number}", "relation_id": "P19",
        "target_new": {"str": "Oslo", "id": "Q585"}, "target_true": {"str": "Rome", "id": "Q220"}},
        "paraphrase_prompts": [f"Ann {number} is a native of"], "neighborhood_prompts": ["Bo was born in"],
        "attribute_prompts": [], "generation_prompts": [f"Ann {number} lives in"], **more}


def use_stand_ins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moves to a folder with a thousand records of each data set under `data`. There is no network, and the models'
    configurations and tokenizers have been fetched."""
    for name, config in MODELS.items():
        cache_model(folder / "hub", name, config)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(folder)
    files = {"zsre_mend_eval.json": [zsre(number) for number in range(1000)],
             "zsre_mend_train_10000.json": [zsre(number) for number in range(2000, 2020)],
             "zsre_mend_eval_portability_gpt4.json": [zsre(number, portability=PORTABILITY) for number in range(50)],
             "counterfact_portability_gpt4.json": [full(number, portability=PORTABILITY) for number in range(50)],
             "counterfact-edit.json": [flat(number) for number in range(1000)],
             "counterfact-train.json": [flat(number) for number in range(2000, 2020)]}
    (folder / "data").mkdir()
    for name, records in files.items():
        (folder / "data" / name).write_text(json.dumps(records))
    (folder / "data" / "wikipedia.txt").write_text("Oslo is the capital of Norway.\n" * 30)


def cache_model(cache: Path, name: str, config: dict[str, Any]) -> Path:
    """A model in a hub cache, without weights; returns its snapshot."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILT_IN[f"testbed-{'t5' if config['model_type'] == 't5' else 'gptj'}"] / file, snapshot / file)
    return snapshot
