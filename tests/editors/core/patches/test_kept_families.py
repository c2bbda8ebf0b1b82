"""Every family's edited model is written from its files, and as an adapter, and answers as `overlay` does."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.families import FAMILIES, tiny
from transformers import AutoModelForCausalLM

from editors import overlay, save_adapter, save_merged
from editors.core.patches.patch import LowRank, Patch

TEXTS = [("Ann Lee lives", "here"), ("It was", "not so")]


def patch_of(model):
    generator = torch.Generator().manual_seed(0)
    path = model.down_path(1)
    out, width = model.matrix(path)
    return Patch((LowRank(path, *(torch.randn(side, 2, generator=generator) * 0.2 for side in (out, width))),))


@torch.no_grad()
def answers(model, module=None, patch=None):
    batch = model.collate([model.encode(*text) for text in TEXTS])
    if module is not None:
        return module.eval()(input_ids=batch.input_ids, attention_mask=batch.attention_mask,
                             position_ids=batch.position_ids).logits[batch.row, batch.position].float()
    with overlay(model, patch or Patch()):
        return model.target_logits(batch)


@pytest.mark.parametrize("name", FAMILIES)
def test_both_forms_answer_as_the_overlay_does(name, tmp_path):
    peft = pytest.importorskip("peft", reason="PEFT is not installed (pip install 'editfleet[dev]')")
    model = tiny(name)
    model.module.save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    if name == "gpt2":  # as its repositories have it, without the backbone's name
        weights = load_file(tmp_path / "base" / "model.safetensors")
        save_file({key.removeprefix("transformer."): value for key, value in weights.items()},
                  tmp_path / "base" / "model.safetensors", {"format": "pt"})
    patch = patch_of(model)
    save_merged(tmp_path / "base", patch, tmp_path / "merged")
    save_adapter(model, patch, tmp_path / "adapter")
    expected = answers(model, patch=patch)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="eager")
    torch.testing.assert_close(answers(model, merged), expected, atol=1e-4, rtol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation="eager")
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    torch.testing.assert_close(answers(model, adapted), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(answers(model), expected, atol=1e-2)
