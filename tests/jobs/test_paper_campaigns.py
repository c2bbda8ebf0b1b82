"""The paper's campaigns plan on its models and data (stand-ins of the same form), and on the built-in models."""

import json
from collections import Counter

import pytest
from transformers import DistilBertConfig, GPTJConfig, T5Config

from jobs.console import plan_campaign

PAPER = ("table2", "table3", "figure6", "figure7")
MODELS = {
    "EleutherAI/gpt-j-6b": GPTJConfig(),  # the library's defaults are these models' own sizes
    "architext/gptj-162M": GPTJConfig(n_layer=12, n_embd=768, n_head=16, rotary_dim=32),
    "google/t5-xl-ssm-nq": T5Config(d_model=2048, d_ff=5120, num_layers=24, num_heads=32, d_kv=64,
                                    feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "google-t5/t5-small": T5Config(), "distilbert-base-cased": DistilBertConfig()}


def zsre(number, **more):
    return {"subject": f"Ann {number}", "src": f"Where was Ann {number} born?", "pred": "Rome", "alt": "Oslo",
            "rephrase": f"What is Ann {number}'s place of birth?", "answers": ["Rome"], "cond": "",
            "loc": "nq question: who sings", "loc_ans": "Bo", **more}


def flat(number):
    return {"case_id": number, "prompt": f"Ann {number} was born in", "subject": f"Ann {number}", "target_new": "Oslo",
            "ground_truth": "Rome", "rephrase_prompt": f"Ann {number} lives in", "locality_prompt": "Bo was born in",
            "locality_ground_truth": "Rome"}


def full(number, **more):
    return {"case_id": number, "requested_rewrite": {
        "prompt": "{} was born in", "subject": f"Ann {number}", "relation_id": "P19",
        "target_new": {"str": "Oslo", "id": "Q585"}, "target_true": {"str": "Rome", "id": "Q220"}},
        "paraphrase_prompts": [f"Ann {number} is a native of"], "neighborhood_prompts": ["Bo was born in"],
        "attribute_prompts": [], "generation_prompts": [f"Ann {number} lives in"], **more}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with the paper's models and data: configurations without weights, and a thousand records each."""
    for name, config in MODELS.items():
        config.save_pretrained(tmp_path / name)
    portability = {"Recalled Relation": "(Oslo, country, Norway)", "New Question": "In which country was she born?",
                   "New Answer": "Norway"}
    files = {"zsre_mend_eval.json": [zsre(number) for number in range(1000)],
             "zsre_mend_train_10000.json": [zsre(number) for number in range(2000, 2020)],
             "zsre_mend_eval_portability_gpt4.json": [zsre(number, portability=portability) for number in range(50)],
             "counterfact_portability_gpt4.json": [full(number, portability=portability) for number in range(50)],
             "counterfact-edit.json": [flat(number) for number in range(1000)],
             "counterfact-train.json": [flat(number) for number in range(2000, 2020)]}
    (tmp_path / "data").mkdir()
    for name, records in files.items():
        (tmp_path / "data" / name).write_text(json.dumps(records))
    (tmp_path / "data" / "wikipedia.txt").write_text("Oslo is the capital of Norway.\n" * 30)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", PAPER)
def test_it_plans_on_the_papers_models_and_data(name, elsewhere):
    planned = plan_campaign(name, None, "data")
    kinds = Counter(task.kind for task in planned.tasks.values())
    cells = {(task.editor_title, task.model_title) for task in planned.tasks.values() if task.kind == "score"}
    assert ("rome", "t5-xl") not in cells and ("memit", "gpt-j") in cells and ("identity", "t5-xl") in cells
    assert kinds["train"] and kinds["baseline"] and kinds["statistics"]
    if name.startswith("table"):
        assert len(cells) == 18
    if name != "table3":
        assert any("82.8 %" in note for note in planned.notes)


@pytest.mark.parametrize("name", PAPER)
def test_it_plans_on_the_built_in_models(name):
    planned = plan_campaign(name, "testbed", None)
    trained = [task for task in planned.tasks.values() if task.kind == "train"]
    assert all(task.shipped for task in trained if task.editor.name in ("serac", "ke", "mend"))
    assert {task.model_title for task in planned.tasks.values() if task.kind == "score"} == {"gpt-j", "t5-xl"}
