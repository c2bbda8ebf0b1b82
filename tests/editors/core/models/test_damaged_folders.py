"""Whatever was done to a model's folder: planning refuses it by name, or the model that loads is the one it was."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from editors.core.errors import InputError
from editors.core.models.loading import find_model, load_model

KINDS = ("tiny_gptj", "tiny_t5", "tiny_gated_t5", "tiny_deep_decoder")
FIELDS = ("n_layer", "n_embd", "n_inner", "n_head", "vocab_size", "num_layers", "num_decoder_layers", "d_model", "d_ff",
          "d_kv", "num_heads", "feed_forward_proj", "model_type", "relative_attention_num_buckets")
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def wholes(request, tmp_path_factory):
    """The tiny models, each with its folder in shards."""
    found = {}
    for kind in KINDS:
        model, folder = request.getfixturevalue(kind), tmp_path_factory.mktemp(kind)
        model.module.save_pretrained(folder, max_shard_size="60KB")
        model.tokenizer.save_pretrained(folder)
        found[kind] = model, folder
    return found


# Each changes a folder as `draw` says.


def drop_a_weight(folder, draw):
    with shard(folder, draw) as (weights, name):
        del weights[name]


def rename_a_weight(folder, draw):
    with shard(folder, draw) as (weights, name):
        weights[draw(st.sampled_from([f"module.{name}", name.replace("weight", "bias"), "x"]))] = weights.pop(name)


def add_a_weight(folder, draw):
    with shard(folder, draw) as (weights, name):
        weights[draw(st.sampled_from(["x", f"old.{name}", f"{name}.old"]))] = weights[name].clone()


def reshape_a_weight(folder, draw):
    with shard(folder, draw) as (weights, name):
        change = draw(st.sampled_from([lambda w: w[:-1], lambda w: w.flatten(), lambda w: w[None]]))
        weights[name] = change(weights[name])


def round_a_weight(folder, draw):
    with shard(folder, draw) as (weights, name):
        weights[name] = weights[name].round().char()


class shard:
    """The weights of one of a folder's files, to be changed, and the name of one of them; the index follows."""

    def __init__(self, folder, draw):
        self.folder = folder
        self.file = draw(st.sampled_from(sorted(folder.glob("*.safetensors"))))
        self.weights = load_file(self.file)
        self.name = draw(st.sampled_from(sorted(self.weights)))

    def __enter__(self):
        return self.weights, self.name

    def __exit__(self, *_):
        index = json.loads((self.folder / INDEX).read_text())
        kept = {name: file for name, file in index["weight_map"].items() if file != self.file.name}
        index["weight_map"] = kept | dict.fromkeys(self.weights, self.file.name)
        (self.folder / INDEX).write_text(json.dumps(index))
        save_file({name: tensor.contiguous() for name, tensor in self.weights.items()}, self.file, {"format": "pt"})


def change_the_configuration(folder, draw):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    field = draw(st.sampled_from([field for field in FIELDS if field in config]))
    config[field] = draw(st.sampled_from([0, -1, 1, 2, 3, 5, 64, 100, None, "gelu", "gated-gelu", "gptj", 1.5, [2]]))
    path.write_text(json.dumps(config))


def lose_a_file(folder, draw):
    draw(st.sampled_from(sorted(folder.iterdir()))).unlink()


def cut_a_file(folder, draw):
    path = draw(st.sampled_from(sorted(folder.iterdir())))
    path.write_bytes(path.read_bytes()[: draw(st.integers(0, path.stat().st_size - 1))])


def mix_up_the_index(folder, draw):
    index = json.loads((folder / INDEX).read_text())
    name = draw(st.sampled_from(sorted(index["weight_map"])))
    files = sorted(set(index["weight_map"].values()))
    to = draw(st.sampled_from([None, f"../{folder.name}/{files[0]}", str(folder / files[0]), "none", 3, *files]))
    index["weight_map"][name] = to
    if to is None:
        del index["weight_map"][name]
    (folder / INDEX).write_text(json.dumps(index))


DAMAGES = (drop_a_weight, rename_a_weight, add_a_weight, reshape_a_weight, round_a_weight, change_the_configuration,
           lose_a_file, cut_a_file, mix_up_the_index)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@given(data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_damaged_folder_is_refused_or_the_model_it_was(wholes, tmp_path_factory, damage, data):
    model, whole = wholes[data.draw(st.sampled_from(KINDS))]
    folder = tmp_path_factory.mktemp("damaged") / "model"
    shutil.copytree(whole, folder)
    damage(folder, data.draw)
    try:
        find_model(folder, weights=False)
    except InputError as refused:
        assert str(folder) in str(refused) and "\n" not in str(refused)
    else:
        loaded = load_model(folder)
        there, wanted = loaded.module.state_dict(), model.module.state_dict()
        assert there.keys() == wanted.keys() and all(there[name].equal(wanted[name]) for name in wanted)
        assert loaded.tokenizer.get_vocab() == model.tokenizer.get_vocab()
        assert damage not in (add_a_weight, round_a_weight)
    finally:
        shutil.rmtree(folder.parent)
