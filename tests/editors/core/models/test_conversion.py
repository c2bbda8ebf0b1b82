"""Pickled checkpoints: nothing but tensors is unpickled, and what was converted once is kept."""

from __future__ import annotations

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from editors.core.errors import InputError
from editors.core.models import conversion
from editors.core.models.checkpoint import Checkpoint
from editors.core.models.conversion import cache_folder, in_safetensors
from editors.core.models.folder import ModelFolder
from editors.core.models.loading import find_model, load_model


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDITFLEET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture(params=["zip", "before PyTorch 1.6"])
def pickled(request, tiny_gptj, tmp_path):
    """A GPT-J in one pickle, in the form of today and in that of old checkpoints."""
    folder = tmp_path / "model"
    tiny_gptj.module.config.save_pretrained(folder)
    tiny_gptj.tokenizer.save_pretrained(folder)
    torch.save(tiny_gptj.module.state_dict(), folder / "pytorch_model.bin",
               _use_new_zipfile_serialization=request.param == "zip")
    return folder


def equal(loaded, expected):
    there, wanted = loaded.module.state_dict(), expected.module.state_dict()
    return there.keys() == wanted.keys() and all(there[name].equal(wanted[name]) for name in wanted)


def test_a_pickle_is_loaded_and_converted_once(pickled, tiny_gptj, cache, monkeypatch):
    assert find_model(pickled, weights=False).checkpoint.pickled and not cache.exists()
    first = load_model(pickled)
    assert equal(first, tiny_gptj)
    [kept] = [path for path in cache.iterdir() if not path.name.startswith(".")]
    assert kept.name == first.digest
    monkeypatch.setattr(conversion, "_convert", None)
    assert equal(load_model(pickled), tiny_gptj)


def test_another_content_is_another_model(pickled, tiny_gptj):
    before = load_model(pickled).digest
    weights = {name: tensor + 1 for name, tensor in tiny_gptj.module.state_dict().items()}
    torch.save(weights, pickled / "pytorch_model.bin")
    changed = load_model(pickled)
    assert changed.digest != before
    assert changed.module.state_dict()["lm_head.bias"].equal(weights["lm_head.bias"])


def test_weights_that_share_memory_are_loaded_from_several_pickles(old_t5_folder, tiny_t5):
    loaded = load_model(old_t5_folder)
    assert equal(loaded, tiny_t5) and loaded.output_table is loaded.input_table


def test_it_is_done_in_shards_and_again_where_one_was_lost(pickled, tiny_gptj, cache, monkeypatch):
    monkeypatch.setattr(conversion, "SHARD", 100_000)
    assert equal(load_model(pickled), tiny_gptj)
    shards = sorted(cache.glob("*/*.safetensors"))
    assert len(shards) > 2 and all(shard.stat().st_size < 200_000 for shard in shards)
    shards[0].unlink()
    shards[1].write_bytes(b"?")
    (cache / f".{shards[0].parent.name}.{os.uname().nodename}").mkdir()  # of a process that was killed
    assert equal(load_model(pickled), tiny_gptj) and shards[0].exists()
    assert not [path for path in cache.iterdir() if path.is_dir() and path.name.startswith(".")]


def test_processes_that_convert_at_once_come_to_one(pickled, tiny_gptj, cache, monkeypatch):
    checkpoint = Checkpoint.of(ModelFolder("mine", pickled))

    def of_another_machine():
        """Which does not see this one's locks."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conversion, "FileLock", nullcontext)
            return in_safetensors(checkpoint, "digest")

    convert, others = conversion._convert, []

    def overtaken(checkpoint, folder):
        convert(checkpoint, folder)
        if not others:
            others.append(None)
            monkeypatch.setattr(os, "uname", lambda: type("", (), {"nodename": "another"}))
            others.append(of_another_machine())

    monkeypatch.setattr(conversion, "_convert", overtaken)
    mine = in_safetensors(checkpoint, "digest")
    assert mine.weights == others[1].weights and mine.read("lm_head.bias").equal(tiny_gptj.module.lm_head.bias)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == ["digest"]
    monkeypatch.setattr(conversion, "_convert", convert)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: in_safetensors(checkpoint, "one machine's"), range(4)))
    assert all(each.weights == found[0].weights for each in found)


class Evil:
    def __reduce__(self):
        return os.system, ("touch opened",)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(pickled, tmp_path, monkeypatch, new):
    monkeypatch.chdir(tmp_path)
    torch.save({"lm_head.weight": torch.zeros(2), "x": Evil()}, pickled / "pytorch_model.bin",
               _use_new_zipfile_serialization=new)
    with pytest.raises(InputError, match=r"'pytorch_model.bin' is a pickle that would call 'posix.system', and was not "
                                         "opened; take the model in safetensors") as refused:
        find_model(pickled, weights=False)
    assert "\n" not in str(refused.value) and not Path("opened").exists()


@pytest.mark.parametrize(("content", "told"), [
    (b"", "is cut short, damaged, or no checkpoint"), (b"version https://git-lfs.github.com/spec/v1", "no checkpoint"),
    (pickle.dumps({"a": 1}), "no checkpoint"), (None, "is cut short, damaged")])
def test_files_that_are_no_checkpoint_are_named(pickled, content, told):
    file = pickled / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(InputError, match=rf"'pytorch_model.bin' .*{told}.*; fetch it again"):
        find_model(pickled, weights=False)


def test_what_is_not_the_weights_by_name_is_refused(pickled, tiny_gptj):
    torch.save({"model": tiny_gptj.module.state_dict(), "step": 3}, pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds more than weights by their names"):
        find_model(pickled)


def test_pickled_weights_that_are_not_the_models_are_refused(pickled, tiny_gptj):
    weights = tiny_gptj.module.state_dict()
    del weights["lm_head.bias"]
    torch.save(weights, pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"missing: 'lm_head\.bias'"):
        find_model(pickled, weights=False)


def test_a_cache_that_cannot_be_written_is_told_with_the_cure(pickled, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDITFLEET_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be kept as safetensors in '.*file/models.*EDITFLEET_CACHE name a"):
        load_model(pickled)


def test_the_cache_is_where_users_have_theirs(monkeypatch, tmp_path):
    monkeypatch.delenv("EDITFLEET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "editfleet" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "editfleet" / "models"


def test_an_index_of_pickles_is_followed(old_t5_folder):
    files = json.loads((old_t5_folder / "pytorch_model.bin.index.json").read_text())["weight_map"]
    checkpoint = Checkpoint.of(ModelFolder("old", old_t5_folder))
    assert {name: stored.file for name, stored in checkpoint.weights.items()} == files
