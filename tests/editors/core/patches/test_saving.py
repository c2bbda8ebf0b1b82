"""A model written with a patch in its weights answers under plain transformers as `overlay` does."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from editors import EDITORS, edit, get_editor, load_model, overlay, save_edited
from editors.core.errors import InputError
from editors.core.patches.patch import Dense, LowRank, Neurons, Patch, Route
from evaluators.testbed import MODELS
from evaluators.testbed.cases import testbed_cases as built_in_cases

TEXTS = [("The birthplace of Budrer is", "Vadolm"), ("X", "an answer"), ("It was", "so")]


def patch_of(model, draw):
    """Terms of both kinds, as all methods whose edits are in weights make them, two of them on one module."""
    up, down, bias = model.up_path(1), model.down_path(1), not model.has_encoder
    terms = [LowRank(down, draw(32, 2), draw(64, 2)), Dense(down, draw(32, 64), draw(32) if bias else None),
             LowRank(up, draw(64, 1), draw(32, 1)), Dense(model.down_path(0), draw(32, 64))]
    if model.has_encoder:
        terms.append(LowRank(model.down_path(0, "encoder"), draw(32, 1), draw(64, 1)))
    return Patch(tuple(terms))


@torch.no_grad()
def plain(module, batch):
    """All logits at the targets, by the library alone."""
    asked = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if source := batch.source:
        asked = {"input_ids": source.input_ids, "attention_mask": source.attention_mask,
                 **{f"decoder_{name}": value for name, value in asked.items()}}
    found = module(**asked).logits
    return found[batch.row, batch.position].float()


def read(folder, model, **settings):
    kind = AutoModelForSeq2SeqLM if model.has_encoder else AutoModelForCausalLM
    module, told = kind.from_pretrained(folder, output_loading_info=True, **settings)
    assert not any(told[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return module.eval()


@torch.no_grad()
def overlaid(model, patch):
    batch = model.collate([model.encode(*text) for text in TEXTS])
    with overlay(model, patch):
        return model.target_logits(batch), batch


@pytest.mark.parametrize("shard", ["5GB", "50KB"])
def test_it_answers_as_the_overlay_does(model, draw, tmp_path, shard):
    weights = {name: value.clone() for name, value in model.module.state_dict().items()}
    config, patch = model.module.config.to_dict(), patch_of(model, draw)
    save_edited(model, patch, tmp_path / "edited", shard=shard, card="# Edited\n")
    expected, batch = overlaid(model, patch)
    torch.testing.assert_close(plain(read(tmp_path / "edited", model), batch), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected, overlaid(model, Patch())[0], atol=1e-2)
    assert AutoTokenizer.from_pretrained(tmp_path / "edited")("It was").input_ids == model.tokenizer("It was").input_ids
    assert (len(list((tmp_path / "edited").glob("*.safetensors"))) > 1) == (shard == "50KB")
    assert (tmp_path / "edited" / "README.md").read_text() == "# Edited\n"
    assert [path.name for path in tmp_path.iterdir()] == ["edited"]
    assert model.module.config.to_dict() == config
    assert all(torch.equal(value, weights[name]) for name, value in model.module.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_precision_is_kept_and_weights_are_rounded_once(model, draw, tmp_path, dtype):
    small = copy.copy(model)
    small.module = copy.deepcopy(model.module).to(dtype)
    patch = patch_of(model, draw)
    save_edited(small, patch, tmp_path / "edited")
    stored = load_file(tmp_path / "edited" / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {dtype}
    assert json.loads((tmp_path / "edited" / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    low, dense, *_ = patch.terms
    exact = small.submodule(low.module).weight.float() + low.a @ low.b.T + dense.weight
    torch.testing.assert_close(stored[f"{low.module}.weight"].float(), exact.to(dtype).float(), atol=1e-6, rtol=0.01)
    expected, batch = overlaid(small, patch)
    found = plain(read(tmp_path / "edited", model, dtype=dtype), batch)
    torch.testing.assert_close(found, expected, atol=0.15, rtol=0.05)
    assert (found - expected).abs().mean() < 0.2 * (overlaid(small, Patch())[0] - expected).abs().mean()


@pytest.mark.parametrize("name", MODELS)
def test_the_built_in_models_come_back(name, tmp_path):
    """Whose tables are shared, or not, as the configuration does not quite tell; edited in their last FFNs."""
    model = load_model(MODELS[name])
    flavour = "question" if model.has_encoder else "cloze"
    case = built_in_cases(flavour, "eval")[0]
    patch = edit(model, "ft", [case.request()])
    save_edited(model, patch, tmp_path / "edited")
    again = load_model(tmp_path / "edited")
    batch = model.collate([model.encode(case.prompt, case.target_new)])
    with overlay(model, patch):
        expected = model.target_logits(batch)
    torch.testing.assert_close(again.target_logits(batch), expected, atol=1e-4, rtol=1e-5)
    assert torch.equal(expected.argmax(-1), batch.target)
    assert again.own_head == model.own_head and torch.equal(again.output_table, model.output_table)


def refused(model, term, problem, folder):
    with pytest.raises(InputError, match=problem) as caught:
        save_edited(model, Patch((term,)), folder / "edited")
    assert f"'{term.kind}'" in str(caught.value) and term.module in str(caught.value)
    assert not list(folder.iterdir())


def test_what_is_no_change_of_weights_is_refused(tiny_gptj, draw, tmp_path):
    neurons = Neurons(tiny_gptj.ffn_path(1), draw(2, 32), draw(32, 2), "relu")
    refused(tiny_gptj, neurons, "T-Patcher and CaliNET", tmp_path)
    refused(tiny_gptj, Route(side="0", memory=(("a", "b"),)), "as SERAC does", tmp_path)


def test_what_is_for_another_model_is_refused(tiny_gptj, tiny_t5, draw, tmp_path):
    refused(tiny_gptj, LowRank("transformer.h.9.mlp.fc_out", draw(32, 1), draw(64, 1)), "does not have", tmp_path)
    refused(tiny_gptj, LowRank(tiny_gptj.ffn_path(1), draw(32, 1), draw(32, 1)), "is on a GPTJMLP", tmp_path)
    refused(tiny_gptj, Dense(tiny_gptj.down_path(1), draw(32, 63)), r"weight \[32, 63\].* should be \[32, 64\]",
            tmp_path)
    refused(tiny_t5, Dense(tiny_t5.down_path(1), draw(32, 64), draw(32)), "adds a bias, and the module has none",
            tmp_path)
    refused(tiny_gptj, Dense(tiny_gptj.down_path(1), draw(32, 64) / 0), "not finite in float32", tmp_path)


def test_a_head_that_is_the_embeddings_too_is_refused(tiny_t5, tiny_gated_t5, draw, tmp_path):
    width = len(tiny_t5.tokenizer)
    term = LowRank("lm_head", draw(width, 1), draw(32, 1))
    refused(tiny_t5, term, "that of 'shared' too", tmp_path)
    save_edited(tiny_gated_t5, Patch((term,)), tmp_path / "edited")
    expected, batch = overlaid(tiny_gated_t5, Patch((term,)))
    torch.testing.assert_close(plain(read(tmp_path / "edited", tiny_gated_t5), batch), expected, atol=1e-5, rtol=1e-5)


def test_editors_say_whether_their_patches_can_be_written():
    assert {name for name in EDITORS if not get_editor(name).in_weights} == {"calinet", "serac", "t-patcher"}


def test_a_folder_with_something_in_it_is_left_alone(tiny_gptj, draw, tmp_path):
    (tmp_path / "edited").mkdir()
    save_edited(tiny_gptj, Patch(), tmp_path / "edited")  # an empty one is taken
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "edited").iterdir())
    with pytest.raises(InputError, match="is not empty"):
        save_edited(tiny_gptj, patch_of(tiny_gptj, draw), tmp_path / "edited")
    assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "edited").iterdir()) == before


KILLED = """
import os, signal, sys
from transformers import PreTrainedTokenizerBase
from editors import load_model, save_edited
from editors.core.patches.patch import Patch
from evaluators.testbed import MODELS
PreTrainedTokenizerBase.save_pretrained = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # weights are written
save_edited(load_model(MODELS["testbed-gptj"]), Patch(), sys.argv[1])
"""


def test_killed_half_way_nothing_has_the_name(tmp_path):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "edited")], check=False,
                           env={**os.environ, "PYTHONPATH": ":".join(sys.path)}, capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "edited").exists()
    assert list(tmp_path.glob(".edited.*/model.safetensors"))  # the library's files had been written by then


UNWRAPPED = """
import sys
from editors import load_model, save_edited
from editors.core.patches.patch import Patch
from evaluators.testbed import MODELS
save_edited(load_model(MODELS["testbed-gptj"]), Patch(), sys.argv[1])
assert "deepspeed" not in sys.modules
"""


def test_saving_loads_no_deepspeed(tmp_path):
    """Which accelerate would do, where it is installed, to see whether it has wrapped the model."""
    subprocess.run([sys.executable, "-c", UNWRAPPED, str(tmp_path / "edited")], check=True,
                   env={**os.environ, "PYTHONPATH": ":".join(sys.path)})


def test_failing_half_way_nothing_is_left(tiny_gptj, draw, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tiny_gptj.tokenizer), "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        save_edited(tiny_gptj, patch_of(tiny_gptj, draw), tmp_path / "edited")
    assert not list(tmp_path.iterdir())
