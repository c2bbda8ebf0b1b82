"""A patch written as a LoRA adapter answers under PEFT as `overlay` does."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file

from editors import overlay, save_adapter
from editors.core.errors import InputError
from editors.core.patches.patch import Dense, LowRank, Neurons, Patch, Route

peft = pytest.importorskip("peft", reason="PEFT is not installed (pip install 'editfleet[dev]')")
TEXTS = [("The birthplace of Budrer is", "Vadolm"), ("X", "an answer"), ("It was", "so")]


@torch.no_grad()
def under_peft(model, folder):
    """Logits at targets of the model with the adapter, which is taken off again."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=FutureWarning)
        adapted = peft.PeftModel.from_pretrained(model.module, folder)
    try:
        return answers(model)
    finally:
        adapted.unload()


@torch.no_grad()
def answers(model, patch=None):
    batch = model.collate([model.encode(*text) for text in TEXTS])
    with overlay(model, patch or Patch()):
        return model.target_logits(batch)


def test_low_rank_is_exact_whatever_the_ranks(model, draw, tmp_path):
    down, up = model.down_path(1), model.up_path(1)
    patch = Patch((LowRank(down, draw(32, 2), draw(64, 2)), LowRank(up, draw(64, 1), draw(32, 1)),
                   LowRank(down, draw(32, 3), draw(64, 3))))
    if model.has_encoder:
        patch += Patch((LowRank(model.down_path(0, "encoder"), draw(32, 1), draw(64, 1)),))
    assert save_adapter(model, patch, tmp_path / "adapter", base="the/base", card="# Adapter\n") == {}
    expected = answers(model, patch)
    torch.testing.assert_close(under_peft(model, tmp_path / "adapter"), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(answers(model), expected, atol=1e-2)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["rank_pattern"][down] == 5 and config["rank_pattern"][up] == 1
    assert config["base_model_name_or_path"] == "the/base"
    assert (tmp_path / "adapter" / "README.md").read_text() == "# Adapter\n"


def test_a_dense_change_of_full_rank_is_kept_with_its_bias(tiny_gptj, draw, tmp_path):
    down = tiny_gptj.down_path(1)
    patch = Patch((Dense(down, draw(32, 64), draw(32)), LowRank(down, draw(32, 1), draw(64, 1)),
                   Dense(tiny_gptj.down_path(2), draw(32, 64))))
    errors = save_adapter(tiny_gptj, patch, tmp_path / "adapter", rank=32)
    assert errors == {down: 0, tiny_gptj.down_path(2): 0}
    torch.testing.assert_close(under_peft(tiny_gptj, tmp_path / "adapter"), answers(tiny_gptj, patch),
                               atol=1e-5, rtol=1e-5)


def test_what_the_cut_loses_is_told(tiny_t5, draw, tmp_path):
    down, weight = tiny_t5.down_path(1), draw(32, 64)
    [(module, error)] = save_adapter(tiny_t5, Patch((Dense(down, weight),)), tmp_path / "adapter", rank=8).items()
    found = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    place = f"base_model.model.{down}"
    cut = found[f"{place}.lora_B.weight"] @ found[f"{place}.lora_A.weight"]
    assert module == down and error == pytest.approx(float((weight - cut).norm() / weight.norm()), rel=1e-4)
    values = torch.linalg.svdvals(weight)
    assert error == pytest.approx(float(values[8:].norm() / values.norm()), rel=1e-4) and 0.1 < error < 0.9
    assert len(found) == 2


@pytest.mark.parametrize(("term", "problem"), [
    (lambda model, draw: Neurons(model.ffn_path(1), draw(2, 32), draw(32, 2), "relu"), "T-Patcher and CaliNET"),
    (lambda model, draw: Route(side="0", memory=(("a", "b"),)), "as SERAC does"),
    (lambda model, draw: Dense(model.down_path(1), draw(32, 64), draw(32)), "adds a bias, and the module has none"),
    (lambda model, draw: LowRank(model.down_path(1), draw(32, 1) / 0, draw(64, 1)), "not finite"),
    (lambda model, draw: LowRank("lm_head", draw(len(model.tokenizer), 1), draw(32, 1)), "that of 'shared' too"),
    (lambda model, draw: LowRank("nowhere", draw(32, 1), draw(64, 1)), "does not have"),
    (lambda model, draw: None, "changes nothing"),
])
def test_what_is_no_adapter_is_refused(tiny_t5, draw, tmp_path, term, problem):
    terms = tuple(filter(None, [term(tiny_t5, draw)]))
    with pytest.raises(InputError, match=problem):
        save_adapter(tiny_t5, Patch(terms), tmp_path / "adapter")
    assert not list(tmp_path.iterdir())
