"""Every family of decoders against the library's own passes."""

from __future__ import annotations

import pytest
import torch
from support.families import FAMILIES, TEXTS, VARIANTS, config_of, tiny
from transformers import AutoModelForCausalLM

from editors.core.models.architectures import Shape
from editors.core.models.batches import BlockRef
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.models.families import ARCHITECTURES

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
    assert (shape.depth, shape.width, shape.vocabulary) == (4, 32, 320)
    own = module.get_output_embeddings().weight is not module.get_input_embeddings().weight
    assert ARCHITECTURES[config.model_type].own_head(config) == own
