"""Which files are a model, and what its digest covers."""

from __future__ import annotations

import json

import pytest

from editors.core.errors import InputError
from editors.core.models.checkpoint import Checkpoint
from editors.core.models.folder import ModelFolder
from editors.core.models.loading import find_model, load_model, model_digest
from evaluators.testbed import MODELS


@pytest.fixture
def folder(tiny_gptj, tmp_path):
    """In three files and an index."""
    tiny_gptj.module.save_pretrained(tmp_path, max_shard_size="100KB")
    tiny_gptj.tokenizer.save_pretrained(tmp_path)
    return tmp_path


def point(folder, change):
    """Changes where the index says that weights are."""
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = {name: change(file) for name, file in index["weight_map"].items()}
    path.write_text(json.dumps(index))
    return sorted(set(index["weight_map"].values()))


def test_digests_of_the_built_in_models_are_what_they_were():
    """What they were trained for ships with the house, by these."""
    assert {name: model_digest(folder) for name, folder in MODELS.items()} == {
        "testbed-gptj": "238fe6e0f80e68d0", "testbed-t5": "80783b3baaebb984"}


def test_the_digest_covers_the_index_and_what_it_lists(folder):
    before = model_digest(folder)
    (folder / "README.md").write_text("words")
    (folder / "pytorch_model.bin").write_bytes(b"of no use beside safetensors")
    assert model_digest(folder) == before
    point(folder, lambda file: f"parts/{file}")
    (folder / "parts").mkdir()
    for file in folder.glob("model-*.safetensors"):
        file.rename(folder / "parts" / file.name)
    moved = model_digest(folder)
    [first, *_] = sorted((folder / "parts").iterdir())
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    assert len({before, moved, model_digest(folder)}) == 3
    find_model(folder)


def test_a_file_that_may_not_be_read_is_told(folder):
    [first, *_] = point(folder, str)
    (folder / first).unlink()
    (folder / first).mkdir()
    with pytest.raises(InputError, match="cannot load model"):
        find_model(folder, weights=False)


@pytest.mark.parametrize("way", ["../outside/", "/tmp/", "parts/../../"])
def test_an_index_leads_nowhere_else(folder, way):
    point(folder, lambda file: way + file)
    with pytest.raises(InputError, match=r"index.json' leads out of the folder, to '(\.\.|/|parts)"):
        load_model(folder)


def test_links_are_followed_as_the_hub_cache_has_them(folder, tmp_path_factory, tiny_gptj):
    blobs = tmp_path_factory.mktemp("blobs")
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(blobs / str(number))
    loaded = load_model(folder).module.state_dict()
    assert all(loaded[name].equal(tensor) for name, tensor in tiny_gptj.module.state_dict().items())


@pytest.mark.parametrize("text", ["{", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_cannot_be_read_is_named(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(InputError, match=r"'model\.safetensors\.index\.json' is cut short or damaged; fetch it again"):
        find_model(folder)


def test_files_that_are_missing_or_do_not_hold_what_the_index_says_are_named(folder):
    [first, second, *_] = point(folder, str)
    (folder / second).rename(folder / "aside")
    with pytest.raises(InputError, match=f"'{second}' is missing; fetch it again"):
        find_model(folder)
    (folder / "aside").rename(folder / second)
    data = (folder / second).read_bytes()
    (folder / second).write_bytes((folder / first).read_bytes())
    with pytest.raises(InputError, match=f"is in '{first}' and in '{second}'; keep one"):
        find_model(folder)
    (folder / second).write_bytes(data[:-1])
    with pytest.raises(InputError, match=f"'{second}' is cut short or damaged; fetch it again"):
        find_model(folder)
    (folder / second).write_bytes(data)
    point(folder, lambda file: {first: second, second: first}.get(file, file))
    with pytest.raises(InputError, match=f"says that '.*' is in '{first}', and it is not"):
        find_model(folder)


@pytest.mark.parametrize(("files", "told"), [
    (["flax_model.msgpack", "tf_model.h5"], "what it has is flax_model.msgpack, tf_model.h5. Load those with"),
    ([], "model.safetensors, .*pytorch_model.bin, .*Fetch the folder whole")])
def test_weights_of_other_libraries_are_told_by_name(folder, files, told):
    for file in folder.glob("model*"):
        file.unlink()
    for file in files:
        (folder / file).write_bytes(b"?")
    with pytest.raises(InputError, match=rf"it has no weights that can be read \(.*{told}"):
        find_model(folder, weights=False)


def test_of_one_file_and_an_index_the_file_counts_as_to_the_library(folder, tiny_gptj):
    tiny_gptj.module.save_pretrained(folder / "whole")
    (folder / "whole" / "model.safetensors").rename(folder / "model.safetensors")
    assert Checkpoint.of(ModelFolder("x", folder)).weights["lm_head.weight"].file == "model.safetensors"
