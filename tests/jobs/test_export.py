"""`editfleet export`: models with edits in their weights, asked by transformers alone."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from typer.testing import CliRunner

from editors import edit, load_model
from editors.core.patches.patch import Neurons, Patch
from evaluators.testbed import MODELS
from evaluators.testbed.cases import testbed_cases as built_in_cases
from jobs.cli import app

PROMPT = ("--prompt", "Pofun Debinov was born in", "--subject", "Pofun Debinov", "--target", "Zesmilport")


@pytest.fixture
def invoke(tmp_path):
    return lambda model, *options: CliRunner().invoke(
        app, ["export", model, "--out", str(tmp_path / "edited"), *map(str, options)])


def written(result, folder):
    """The tokenizer, the model and the card that a command which ended well has written."""
    assert result.exit_code == 0, result.output
    kind = AutoModelForSeq2SeqLM if "t5" in result.stdout else AutoModelForCausalLM
    return AutoTokenizer.from_pretrained(folder), kind.from_pretrained(folder), (folder / "README.md").read_text()


def answers(tokenizer, module, prompt):
    """What a decoder writes on with, four tokens of it."""
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
    found = module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    return tokenizer.decode(found[0, ids.shape[1]:]).strip()


@pytest.mark.parametrize(("editor", "more"), [
    ("ft", []), ("memit", ["--tokens", 3000]), ("rome", ["--tokens", 3000]), ("mend", [])])
def test_edits_of_a_data_set(invoke, tmp_path, editor, more):
    """At once (ft, MEMIT, MEND with what ships of it), or one after another (ROME)."""
    cases = built_in_cases("cloze", "eval")[:2]
    tokenizer, module, card = written(
        invoke("testbed-gptj", "--editor", editor, "--data", "testbed-cloze", "--limit", 2, *more), tmp_path / "edited")
    right = [answers(tokenizer, module, case.prompt).startswith(case.target_new) for case in cases]
    assert all(right) or (editor == "mend" and any(right))
    assert all(json.dumps(case.prompt, ensure_ascii=False) in card for case in cases)
    assert f"editor: {editor}, version" in card and "testbed-gptj (digest" in card and "editfleet " in card
    assert ("one after another" if editor == "rome" else "all at once") in card


def test_one_edit_with_settings_and_a_precision(invoke, tmp_path):
    result = invoke("testbed-gptj", "--editor", "ft", *PROMPT, "--set", "layers=[1]", "--set", "lr=0.004",
                    "--dtype", "bfloat16")
    tokenizer, module, card = written(result, tmp_path / "edited")
    assert module.dtype == torch.bfloat16 and answers(tokenizer, module, PROMPT[1]).startswith("Zesmilport")
    assert '"layers": [1]' in card and '"lr": 0.004' in card and "bfloat16" in card
    base, changed = load_model(MODELS["testbed-gptj"], dtype="bfloat16").module.state_dict(), module.state_dict()
    assert {name.rpartition(".")[0] for name in base if not torch.equal(base[name], changed[name])} == {
        "transformer.h.1.mlp.fc_out"}


def test_a_t5_and_an_edit_that_cannot_be_made(invoke, tmp_path):
    case = built_in_cases("question", "eval")[0]
    good = {"id": "good", "prompt": case.prompt, "subject": case.subject, "target_new": case.target_new}
    (tmp_path / "edits.json").write_text(json.dumps([good, {**good, "id": "bad", "subject": "Nobody"}]))
    result = invoke("testbed-t5", "--editor", "ft", "--data", tmp_path / "edits.json")
    *_, card = written(result, tmp_path / "edited")
    model = load_model(tmp_path / "edited")
    batch = model.collate([model.encode(case.prompt, case.target_new)])
    assert torch.equal(model.target_logits(batch).argmax(-1), batch.target)
    assert "1 edit left out" in result.stderr and "bad" in card.partition("Left out (1)")[2]


def test_saved_patches(invoke, tmp_path):
    case = built_in_cases("cloze", "eval")[0]
    edit(load_model(MODELS["testbed-gptj"]), "ft", [case.request()]).save(tmp_path / "p.safetensors")
    tokenizer, module, card = written(invoke("testbed-gptj", "--patch", tmp_path / "p.safetensors"),
                                      tmp_path / "edited")
    assert answers(tokenizer, module, case.prompt).startswith(case.target_new) and "p.safetensors" in card


def test_a_saved_patch_of_neurons_is_refused(invoke, tmp_path):
    term = Neurons("transformer.h.1.mlp", torch.ones(1, 128), torch.ones(128, 1), "relu")
    Patch((term,)).save(tmp_path / "p.safetensors")
    result = invoke("testbed-gptj", "--patch", tmp_path / "p.safetensors")
    assert result.exit_code == 2 and "'neurons' on 'transformer.h.1.mlp'" in result.stderr
    assert not (tmp_path / "edited").exists()


@pytest.mark.parametrize(("model", "options", "message"), [
    ("testbed-gptj", ["--editor", "serac", *PROMPT], "edits by 'serac' cannot be written"),
    ("testbed-gptj", ["--editor", "calinet", *PROMPT], "edits by 'calinet' cannot be written"),
    ("testbed-gptj", ["--editor", "t-patcher", *PROMPT], "ft, identity, ke, kn, memit, mend, rome"),
    ("testbed-gptj", ["--editor", "rom", *PROMPT], "Did you mean 'rome'"),
    ("testbed-gpt", ["--editor", "ft", *PROMPT], "Did you mean 'testbed-gptj'"),
    ("", ["--editor", "ft", *PROMPT], "the command line"),
    ("testbed-gptj", ["--editor", "ft"], "no edit given: take --data"),
    ("testbed-gptj", PROMPT, "--editor is missing: ft, identity"),
    ("testbed-gptj", ["--editor", "ft", "--patch", "p"], "leave --editor out"),
    ("testbed-gptj", ["--patch", "absent"], "there is no patch file 'absent'"),
    ("testbed-gptj", ["--editor", "ft", *PROMPT[:4]], "--target is missing"),
    ("testbed-gptj", ["--editor", "ft", "--data", "testbed-cloze", *PROMPT], "--data and --prompt given"),
    ("testbed-gptj", ["--editor", "ft", "--data", "testbed-close"], "Did you mean 'testbed-cloze'"),
    ("testbed-gptj", ["--editor", "ft", *PROMPT, "--set", "lrr=1"], "lr"),
    ("testbed-gptj", ["--editor", "ft", *PROMPT, "--set", "lr"], "expected NAME=VALUE"),
    ("testbed-gptj", ["--editor", "ft", *PROMPT, "--device", "tpx"], "cannot use 'tpx'"),
    ("testbed-gptj", ["--editor", "ft", *PROMPT, "--artefact", "a"], "is not trained"),
    (str(MODELS["testbed-gptj"]), ["--editor", "mend", *PROMPT], "has to be trained first"),
    ("testbed-t5", ["--editor", "rome", *PROMPT], "is for decoder-only models"),
    ("testbed-gptj", ["--editor", "ft", *PROMPT[:2], "--subject", "Nobody", *PROMPT[4:]],
     "subject 'Nobody' is not in prompt"),
])
def test_wrong_input_ends_with_2_and_writes_nothing(invoke, tmp_path, model, options, message):
    result = invoke(model, *options)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.output, result.output
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_refused_at_once(invoke, tmp_path):
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "mine").write_text("kept")
    result = invoke("testbed-gptj", "--editor", "rom", *PROMPT)
    assert result.exit_code == 2 and "is not empty" in result.stderr
    assert (tmp_path / "edited" / "mine").read_text() == "kept"
