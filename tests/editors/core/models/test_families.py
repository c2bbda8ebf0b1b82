"""Every family of decoders against the library's own passes."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.families import FAMILIES, VARIANTS, VOCABULARY, config_of, tiny
from transformers import AutoModelForCausalLM

from editors.core.errors import InputError
from editors.core.models.architectures import Shape
from editors.core.models.batches import BlockRef
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.models.families import ARCHITECTURES
from editors.core.models.layouts import longest
from editors.core.models.loading import load_model
from editors.core.models.model import LanguageModel
from editors.core.models.prefixes import read

NAMES = [*FAMILIES, *VARIANTS]
ROWS = [("What is the birthplace of Budrer Vadolm?", "so many words"), ("It", "was"), ("Ann Lee lives", "here")]


def close(left, right):
    torch.testing.assert_close(left, right, atol=2e-5, rtol=1e-4)


@pytest.fixture(params=NAMES)
def model(request):
    return tiny(request.param)


@pytest.fixture
def rows(model):
    return [model.encode(*row) for row in ROWS]


def test_every_family_has_a_tiny_model():
    assert {*FAMILIES, "t5"} == set(ARCHITECTURES)


def plain_logits(model, row):
    """The library's logits of one text without padding, from a model that nothing was done to."""
    with torch.random.fork_rng():
        module = AutoModelForCausalLM.from_config(config_of(model.name.removeprefix("tiny "))).eval()
    module.load_state_dict(model.module.state_dict())
    with torch.no_grad():
        return module(input_ids=torch.tensor([row.prompt + row.target])).logits[0, len(row.prompt) - 1: -1]


@pytest.mark.parametrize("padding", ["right", "left"])
def test_logits_are_the_librarys(model, rows, padding):
    with torch.no_grad():
        close(model.target_logits(model.collate(rows, padding)), torch.cat([plain_logits(model, row) for row in rows]))


def test_parts_of_a_pass_are_the_whole(model, rows):
    batch = model.collate(rows)
    real = batch.attention_mask.bool()
    with torch.no_grad():
        states = model.states(batch)
        for layer in range(model.depth + 1):
            entering = model.run_to(batch, BlockRef("decoder", layer))
            if layer < model.depth:
                close(model.run_from(entering, batch, BlockRef("decoder", layer))[real], states[real])
            else:
                close(model.finish(entering)[real], states[real])


def test_a_suffix_behind_cached_tokens_is_part_of_the_whole(model, rows):
    batch = model.collate(rows)
    start = batch.first_position
    suffix, taken = batch.suffix(start)
    row = torch.arange(len(rows))[:, None]
    with torch.no_grad():
        states, cache = model.states_and_cache(batch)
        entering = model.run_to(batch, BlockRef("decoder", 2))[row, taken]
        before = int(start.max())
        past = [(keys[:, :, :before], values[:, :, :before]) for keys, values in cache]
        found = model.run_from(entering, suffix, BlockRef("decoder", 2), past)
    real = suffix.attention_mask[:, before:].bool()
    close(found[real], states[row, taken][real])


@pytest.mark.parametrize("stop", [1, 2, -1])
def test_what_rows_have_in_common_is_read_once(model, stop):
    """Cached tokens and inputs of two texts in three contexts: an empty one, and two of different length. From a block
    on only the first tokens of each are read, and of two rows the last of these is asked for."""
    contexts = ["", "One says that ", "It is: "]
    texts = [("Ann Lee lives in a", "house"), ("What", "so, or not")]
    rows = [model.encode(context + text, target) for text, target in texts for context in contexts]
    batch, stop = model.collate(rows), stop % (model.depth + 1)
    start = torch.tensor([0, *(len(model.encode(context).prompt) - 1 for context in contexts[1:])] * 2)
    assert start.tolist()[1] != start.tolist()[2] and all(
        rows[row].prompt[: start[row]] == rows[row + 3].prompt[: start[row]] for row in range(3))
    needed, asked = torch.tensor([len(row.prompt) for row in rows]), torch.tensor([1, 3])
    down = model.down_path(stop - 1)
    with torch.no_grad(), capture_inputs(model, [down]) as inputs:
        states, cache = model.states_and_cache(batch)
        keys = inputs[down]
        found = read(model, batch, start, len(contexts), stop, needed, asked)
        assert found.length == int((batch.attention_mask.sum(1) - start).max()) < states.shape[1]
        new = inputs[down]
    close(found.final, states[asked, needed[asked] - 1])
    places, real = torch.arange(states.shape[1]).expand(len(rows), -1), batch.attention_mask.bool()
    behind = real & (places >= start[:, None])
    close(new[torch.arange(len(rows))[:, None], found.at(places.maximum(start[:, None]))][behind], keys[behind])
    for number, whole in enumerate(cache):
        known = real if number < stop else real & (places < needed[:, None])
        for one, other in zip(found.keys_values(number, states.shape[1]), whole, strict=True):
            close(one.transpose(1, 2)[known], other.transpose(1, 2)[known])
    longest = int((needed - start).max())
    assert all(values.shape[2] == int(start.max()) + longest for _, values in found.cache[stop:])


def test_an_ffn_is_what_lies_between_its_ends(model, rows):
    """The FFN's output is its down-projection's, of a key as wide as is said, and what a block adds of it is what
    changes when the projection's output does."""
    path, down, up, block = model.ffn_path(1), model.down_path(1), model.up_path(1), model.block_path(1)
    batch = model.collate(rows)
    with torch.no_grad(), capture_inputs(model, [path, down, up]) as inputs, \
            capture_outputs(model, [path, down, up, block]) as outputs:
        model.run_to(batch, BlockRef("decoder", 2))
    assert torch.equal(outputs[path], outputs[down]) and torch.equal(inputs[path], inputs[up])
    config, shape = model.module.config, Shape.of(model.module.config)
    assert inputs[down].shape == (*batch.input_ids.shape, shape.inner)
    assert model.matrix(down) == (model.width, shape.inner)
    assert model.matrix(up) == ((1 + (config.model_type == "phi3")) * shape.inner, model.width)
    more = torch.randn_like(outputs[down])
    handle = model.submodule(down).register_forward_hook(lambda _module, _args, output: output + more)
    with torch.no_grad():
        moved = model.run_to(batch, BlockRef("decoder", 2))
        handle.remove()
        close(model.with_more(1, outputs[block], outputs[down], more), moved)
        rest = outputs[block] - model.after_ffn(1, outputs[down])
        close(rest + model.after_ffn(1, outputs[down] + more), moved)


@pytest.mark.parametrize("name", NAMES)
def test_the_formula_counts_what_a_model_has(name):
    config = config_of(name)
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    shape = Shape.of(config)
    assert shape.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert (shape.depth, shape.width, shape.vocabulary) == (3, 32, VOCABULARY)
    own = module.get_output_embeddings().weight is not module.get_input_embeddings().weight
    assert ARCHITECTURES[config.model_type].own_head(config) == own


def save(model, folder):
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def test_a_folder_is_the_model(model, rows, tmp_path):
    loaded = load_model(save(model, tmp_path))
    batch = model.collate(rows)
    assert loaded.own_head == model.own_head == (loaded.output_table is not loaded.input_table)
    assert torch.equal(loaded.target_logits(batch), model.target_logits(batch))


def rename(folder, change):
    """Gives the weights of a folder the names that `change` makes of theirs, and adds what it returns beside."""
    file = folder / "model.safetensors"
    weights = change(load_file(file))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file, {"format": "pt"})


def as_gpt2(weights):
    """OpenAI's names begin with none for the backbone, and its attention keeps its masks."""
    bare = {name.removeprefix("transformer."): tensor for name, tensor in weights.items() if name != "lm_head.weight"}
    return bare | {f"h.{layer}.attn.bias": torch.ones(1, 1, 4, 4).byte() for layer in range(3)}


def as_pythia(weights):
    named = {name.replace("lm_head.", "embed_out."): tensor for name, tensor in weights.items()}
    return named | {f"gpt_neox.layers.{layer}.attention.{table}": torch.ones(()) for layer in range(3)
                    for table in ("bias", "masked_bias", "rotary_emb.inv_freq")}


def as_gptj(weights):
    return weights | {f"transformer.h.{layer}.attn.{table}": torch.ones(()) for layer in range(3)
                      for table in ("bias", "masked_bias")}


def as_llama(weights):
    return weights | {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(2) for layer in range(3)}


@pytest.mark.parametrize(("name", "old"), [("gpt2", as_gpt2), ("gpt_neox", as_pythia), ("gptj", as_gptj),
                                           ("llama", as_llama)])
def test_checkpoints_with_the_names_of_old_are_read(name, old, tmp_path):
    model = tiny(name)
    rename(save(model, tmp_path), old)
    batch = model.collate([model.encode(*row) for row in ROWS])
    assert torch.equal(load_model(tmp_path).target_logits(batch), model.target_logits(batch))
    rename(tmp_path, lambda weights: {name: weights[name] for name in sorted(weights) if "h.1." not in name
                                      and "layers.1." not in name})
    with pytest.raises(InputError, match="missing: "):
        load_model(tmp_path)


@pytest.mark.parametrize(("name", "fields", "problem"), [
    ("llama", {"num_key_value_heads": 3}, "num_attention_heads .4. is no multiple of num_key_value_heads .3."),
    ("opt", {"word_embed_proj_dim": 16}, "word_embed_proj_dim"), ("opt", {"do_layer_norm_before": False}, "norms"),
    ("gemma3_text", {"use_bidirectional_attention": True}, "left to right")])
def test_a_model_that_editors_cannot_take_is_refused(name, fields, problem):
    with pytest.raises(InputError, match=problem):
        Shape.of(config_of(name, **fields))


def test_a_gemma_overflows_half_precision(tmp_path):
    with pytest.raises(InputError, match="too large for float16"):
        load_model(save(tiny("gemma2"), tmp_path), dtype="float16")


def test_no_text_is_longer_than_a_window():
    """Then windows make no difference, but where cached tokens lie further apart in a batch than in their text."""
    assert longest(config_of("mistral")) == 128 and longest(config_of("gemma3_text")) == 144
    assert longest(config_of("qwen2")) == longest(config_of("llama")) == 160
    stretched = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 1e4}
    assert longest(config_of("phi3", original_max_position_embeddings=48, rope_parameters=stretched)) == 48


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3_text", "qwen2 with windows"])
def test_windows_do_not_cut_what_is_cached_apart(name):
    whole = tiny(name)
    long, short = whole.encode(ROWS[0][0], "so"), whole.encode("It", "was the house of Ann Lee in many of the cities")
    narrow = config_of(name, sliding_window=max(len(long), len(short)))
    module = AutoModelForCausalLM.from_config(narrow).eval()
    module.load_state_dict(whole.module.state_dict())
    model = LanguageModel(module, whole.tokenizer, name)
    batch = model.collate([long, short])
    start = torch.tensor([len(long) - 1, 1])
    suffix, taken = batch.suffix(start)
    assert suffix.attention_mask.shape[1] > model.max_length  # where a window would cut
    row = torch.arange(2)[:, None]
    with torch.no_grad():
        states, cache = model.states_and_cache(batch)
        past = [(keys[:, :, : int(start.max())], values[:, :, : int(start.max())]) for keys, values in cache]
        found = model.run_from(model.run_to(batch, BlockRef("decoder", 1))[row, taken], suffix,
                               BlockRef("decoder", 1), past)
    real = suffix.attention_mask[:, int(start.max()):].bool()
    close(found[real], states[row, taken][real])
