"""A model written from its files, weight by weight, answers as `overlay` does, and never is in memory."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GPTJConfig

from editors import edit, load_model, overlay, save_edited, save_merged
from editors.core.errors import InputError
from editors.core.models.checkpoint import Checkpoint
from editors.core.models.folder import ModelFolder
from editors.core.models.loading import load_skeleton
from editors.core.patches.patch import Dense, LowRank, Neurons, Patch
from editors.core.requests import EditRequest

TEXTS = [("The birthplace of Budrer is", "Vadolm"), ("X", "an answer"), ("It was", "so")]


def patch_of(model, draw):
    down, bias = model.down_path(1), not model.has_encoder
    return Patch((LowRank(down, draw(32, 2), draw(64, 2)), Dense(down, draw(32, 64), draw(32) if bias else None),
                  LowRank(model.up_path(1), draw(64, 1), draw(32, 1))))


def stored(model, folder, shard="50KB", dtype=torch.float32):
    """The model as a folder in several files."""
    copy.deepcopy(model.module).to(dtype).save_pretrained(folder, max_shard_size=shard)
    model.tokenizer.save_pretrained(folder)
    return folder


def answers(folder, model, patch=None):
    """Logits at targets: of the library's own model in a folder, or of `overlay`."""
    batch = model.collate([model.encode(*text) for text in TEXTS])
    with torch.no_grad(), overlay(model, patch or Patch()):
        if folder is None:
            return model.target_logits(batch)
        kind = AutoModelForSeq2SeqLM if model.has_encoder else AutoModelForCausalLM
        module, told = kind.from_pretrained(folder, output_loading_info=True)
        assert not any(told[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        asked = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if source := batch.source:
            asked = {"input_ids": source.input_ids, "attention_mask": source.attention_mask,
                     **{f"decoder_{name}": value for name, value in asked.items()}}
        return module.eval()(**asked).logits[batch.row, batch.position].float()


@pytest.mark.parametrize("shard", ["5GB", "50KB"])
def test_it_answers_as_the_overlay_does(model, draw, tmp_path, shard):
    folder, patch = stored(model, tmp_path / "base", shard), patch_of(model, draw)
    (folder / "LICENSE").write_text("as it was")
    (folder / "README.md").write_text("the base's")
    (folder / "optimizer.pt").write_text("no part of a model")
    save_merged(folder, patch, tmp_path / "edited", card="# Edited\n")
    torch.testing.assert_close(answers(tmp_path / "edited", model), answers(None, model, patch), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(answers(None, model), answers(None, model, patch), atol=1e-2)
    names = {file.name for file in folder.iterdir()}
    assert {file.name for file in (tmp_path / "edited").iterdir()} == names - {"optimizer.pt"}
    assert (tmp_path / "edited" / "README.md").read_text() == "# Edited\n"
    assert AutoTokenizer.from_pretrained(tmp_path / "edited")("It was").input_ids == model.tokenizer("It was").input_ids
    before, after = (Checkpoint.of(ModelFolder("m", path)) for path in (folder, tmp_path / "edited"))
    assert before.weights == after.weights and (len(set(stored.file for stored in after.weights.values())) > 1) == (
        shard == "50KB")
    touched = {name for name in before.weights if not torch.equal(before.read(name), after.read(name))}
    assert {name.rpartition(".")[0] for name in touched} == {term.module for term in patch.terms}


def test_both_ways_of_writing_are_the_same_to_the_bit(tiny_gptj, draw, tmp_path):
    folder, patch = stored(tiny_gptj, tmp_path / "base"), patch_of(tiny_gptj, draw)
    save_merged(folder, patch, tmp_path / "streamed")
    save_edited(load_model(folder), patch, tmp_path / "saved", shard="50KB")
    left, right = (Checkpoint.of(ModelFolder("m", tmp_path / name)) for name in ("streamed", "saved"))
    assert left.weights.keys() == right.weights.keys()
    assert all(torch.equal(left.read(name), right.read(name)) for name in left.weights)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_precision_that_is_asked_for(tiny_gptj, draw, tmp_path, dtype):
    """Weights are rounded once, numbers that are no weights of a model stay, and the files are the library's own."""
    folder, patch = stored(tiny_gptj, tmp_path / "base"), patch_of(tiny_gptj, draw)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    save_merged(folder, patch, tmp_path / "edited", dtype=dtype)
    for file in set(index["weight_map"].values()):
        before, after = load_file(folder / file), load_file(tmp_path / "edited" / file)
        assert {name: tensor.shape for name, tensor in before.items()} == {
            name: tensor.shape for name, tensor in after.items()}
        assert {tensor.dtype for tensor in after.values()} == {getattr(torch, dtype)}
        for name in before.keys() - {f"{term.module}.{part}" for term in patch.terms for part in ("weight", "bias")}:
            assert torch.equal(before[name].to(after[name].dtype), after[name])
        save_file(after, tmp_path / "again", {"format": "pt"})
        assert (tmp_path / "again").stat().st_size == (tmp_path / "edited" / file).stat().st_size
    down = patch.terms[0].module
    weight = load_model(tmp_path / "edited").submodule(down).weight
    exact = tiny_gptj.submodule(down).weight + patch.terms[0].a @ patch.terms[0].b.T + patch.terms[1].weight
    torch.testing.assert_close(weight, exact.to(getattr(torch, dtype)).float(), atol=1e-6, rtol=0.01)
    config = json.loads((tmp_path / "edited" / "config.json").read_text())
    assert config["dtype"] == dtype and "torch_dtype" not in config
    said = json.loads((tmp_path / "edited" / "model.safetensors.index.json").read_text())
    assert said["weight_map"] == index["weight_map"]
    assert said["metadata"]["total_size"] == index["metadata"]["total_size"] // 2


def test_half_precision_stays_where_nothing_is_asked_for(tiny_gptj, draw, tmp_path):
    folder = stored(tiny_gptj, tmp_path / "base", dtype=torch.bfloat16)
    save_merged(folder, patch_of(tiny_gptj, draw), tmp_path / "edited")
    assert {tensor.dtype for file in (tmp_path / "edited").glob("*.safetensors")
            for tensor in load_file(file).values()} == {torch.bfloat16}


def test_a_pickled_checkpoint_becomes_safetensors(old_t5_folder, tiny_t5, draw, tmp_path):
    patch = Patch((LowRank(tiny_t5.down_path(1), draw(32, 1), draw(64, 1)),))
    save_merged(old_t5_folder, patch, tmp_path / "edited")
    assert not list((tmp_path / "edited").glob("*.bin*")) and (tmp_path / "edited" / "spiece.model").exists()
    model = load_model(old_t5_folder)
    torch.testing.assert_close(answers(tmp_path / "edited", model), answers(None, model, patch), atol=1e-5, rtol=1e-5)


def refused(folder, patch, problem, tmp_path):
    with pytest.raises(InputError, match=problem):
        save_merged(folder, patch, tmp_path / "edited")
    assert not (tmp_path / "edited").exists()


def test_what_cannot_be_written_is_refused(tiny_t5, draw, tmp_path):
    folder = stored(tiny_t5, tmp_path / "base")
    refused(folder, Patch((Neurons(tiny_t5.ffn_path(1), draw(2, 32), draw(32, 2), "relu"),)), "T-Patcher", tmp_path)
    refused(folder, Patch((Dense(tiny_t5.down_path(1), draw(32, 64), draw(32)),)), "adds a bias", tmp_path)
    refused(folder, Patch((Dense(tiny_t5.down_path(1), draw(32, 64) / 0),)), "not finite in float32", tmp_path)
    head = LowRank("lm_head", draw(len(tiny_t5.tokenizer), 1), draw(32, 1))
    refused(folder, Patch((head,)), "that of 'shared' too", tmp_path)
    refused(tmp_path / "nowhere", Patch(), "there is no such folder", tmp_path)


def test_a_head_of_its_own_is_written(tiny_gated_t5, draw, tmp_path):
    folder = stored(tiny_gated_t5, tmp_path / "base")
    patch = Patch((LowRank("lm_head", draw(len(tiny_gated_t5.tokenizer), 1), draw(32, 1)),))
    save_merged(folder, patch, tmp_path / "edited")
    torch.testing.assert_close(answers(tmp_path / "edited", tiny_gated_t5), answers(None, tiny_gated_t5, patch),
                               atol=1e-5, rtol=1e-5)


def test_a_patch_of_another_folder_is_refused(tiny_gptj, tmp_path):
    folder = stored(tiny_gptj, tmp_path / "base")
    patch = edit(load_model(folder), "ft", [EditRequest("Ann lives in", "Ann", "Omerga")], layers=[1], steps=1)
    save_merged(folder, patch, tmp_path / "edited")
    refused(tmp_path / "edited", patch, f"'{folder}'.*and not for '{tmp_path / 'edited'}'", tmp_path / "edited")


def test_a_skeleton_holds_no_weight(model, tmp_path):
    skeleton, found = load_skeleton(stored(model, tmp_path / "base"))
    assert {weight.device.type for weight in skeleton.module.parameters()} == {"meta"}
    assert {name: weight.shape for name, weight in skeleton.module.named_parameters()} == {
        name: weight.shape for name, weight in model.module.named_parameters()}
    assert skeleton.own_head == model.own_head
    assert skeleton.digest == found.digest == load_model(tmp_path / "base").digest


MEASURED = """
import os, re, sys, torch
from editors import save_merged
from editors.core.patches.patch import LowRank, Patch
os.fsync = lambda _: None  # which takes most of the time, and no memory
base, out, *modules = sys.argv[1:]
def status(what):
    return int(re.search(what + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
save_merged(base + "-small", Patch(), out + "-small")  # all that is imported is, now
patch = Patch(tuple(LowRank(module, torch.ones(1024, 4), torch.ones(4096, 4)) for module in modules))
for dtype in (None, "bfloat16"):
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    save_merged(base, patch, out + str(dtype), dtype=dtype)
    print(status("VmHWM") - before, patch.nbytes)
"""
HEAP = {"MALLOC_MMAP_THRESHOLD_": "1000000"}  # what is freed goes back at once, so that memory is what is in use


@pytest.fixture(scope="module")
def large(tiny_gptj, tmp_path_factory):
    """A GPT-J of 400 MB in eight files of zeros, which take no room on most disks; and a small one beside it."""
    folder = tmp_path_factory.mktemp("large") / "base"
    stored(tiny_gptj, folder.with_name("base-small"), "5GB")
    config = GPTJConfig(**{**tiny_gptj.module.config.to_dict(), "n_embd": 1024, "n_layer": 8, "n_head": 8,
                           "n_inner": 4096, "rotary_dim": 8})
    with torch.device("meta"):
        weights = AutoModelForCausalLM.from_config(config).state_dict()
    files = {name: f"model-{int(name.split('.')[2]) if '.h.' in name else 7}.safetensors" for name in weights}
    folder.mkdir()
    config.save_pretrained(folder)
    tiny_gptj.tokenizer.save_pretrained(folder)
    for file in set(files.values()):
        header, end = {}, 0
        for name, weight in weights.items():
            if files[name] == file:
                header[name] = {"dtype": "F32", "shape": list(weight.shape), "data_offsets": [end, end + weight.nbytes]}
                end += weight.nbytes
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    yield folder
    shutil.rmtree(folder.parent)


def test_memory_stays_below_the_largest_file_and_the_patch(large, tmp_path):
    modules = [f"transformer.h.{layer}.mlp.fc_out" for layer in (0, 3, 7)]
    sizes = [file.stat().st_size for file in large.glob("*.safetensors")]
    assert len(sizes) == 8 and sum(sizes) > 400e6
    ended = subprocess.run([sys.executable, "-c", MEASURED, large, tmp_path / "out-", *modules], text=True, check=True,
                           env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", **HEAP}, capture_output=True)
    for line in ended.stdout.splitlines():
        grown, patch = map(int, line.split())
        assert grown < max(sizes) + patch, f"{grown / 1e6:.0f} MB, of files of {max(sizes) / 1e6:.0f}"
    for dtype in ("None", "bfloat16"):
        edited = Checkpoint.of(ModelFolder("m", tmp_path / f"out-{dtype}"))
        assert edited.read(f"{modules[1]}.weight").unique().tolist() == [4.0]
        assert not edited.read("transformer.h.1.mlp.fc_out.weight").any()
        shutil.rmtree(tmp_path / f"out-{dtype}")
