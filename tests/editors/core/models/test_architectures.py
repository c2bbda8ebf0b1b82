"""Sizes of models, told from configurations alone."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GPTJConfig, T5Config

from editors.core.errors import InputError
from editors.core.models.architectures import ARCHITECTURES, Shape
from editors.core.models.loading import load_config, load_model
from evaluators.models import model_path

T5_SMALL = {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "d_kv": 64}
T5_3B = {"d_model": 1024, "d_ff": 16384, "num_layers": 24, "num_heads": 32, "d_kv": 128}
T5_XL = {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32, "d_kv": 64}
V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
CONFIGS = {
    "gpt-j-6b": GPTJConfig(),
    "gpt-j of other sizes": GPTJConfig(vocab_size=1000, n_embd=96, n_layer=3, n_head=4, n_inner=100, rotary_dim=8),
    "gpt-j with a tied head": GPTJConfig(n_embd=64, n_layer=2, n_head=2, rotary_dim=8, tie_word_embeddings=True),
    "t5-small": T5Config(**T5_SMALL), "t5-3b": T5Config(**T5_3B), "t5-v1_1-small": T5Config(**T5_SMALL, **V1_1),
    "t5-v1_1-xl": T5Config(**T5_XL, **V1_1),
    "a t5 of unequal stacks": T5Config(**T5_SMALL, num_decoder_layers=2, relative_attention_num_buckets=16),
}
WITH_OWN_HEAD = {"gpt-j-6b", "gpt-j of other sizes", "t5-v1_1-small", "t5-v1_1-xl"}


def counted(config):
    """Numbers in the parameters of such a model. The library ties the head of every T5 that it makes without a file;
    of a T5 v1.1 it leaves it apart where a file holds one."""
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        module = kind.from_config(config)
    head, table = module.get_output_embeddings().weight, module.get_input_embeddings().weight
    extra = table.numel() if config.is_encoder_decoder and head is table and config.feed_forward_proj != "relu" else 0
    return sum(parameter.numel() for parameter in module.parameters()) + extra


@pytest.mark.parametrize("name", CONFIGS)
def test_the_formula_counts_what_a_model_has(name):
    config = CONFIGS[name]
    assert Shape.of(config).parameters == counted(config)
    assert ARCHITECTURES[config.model_type].own_head(config) == (name in WITH_OWN_HEAD)


def test_stacks_may_be_of_different_depth():
    shape = Shape.of(CONFIGS["a t5 of unequal stacks"])
    assert (shape.encoder, shape.depth) == (6, 2) and Shape.of(CONFIGS["gpt-j-6b"]).encoder == 0


def test_sizes_are_the_published_ones():
    assert Shape.of(CONFIGS["gpt-j-6b"]) == Shape(6_050_882_784, 28, 4096, 16384, 50400)  # the model card's count
    assert Shape.of(CONFIGS["t5-v1_1-xl"]) == Shape(2_849_757_184, 24, 2048, 5120, 32128, encoder=24, gated=True)


@pytest.mark.parametrize("name", ["testbed-gptj", "testbed-t5"])
def test_built_in_models_are_counted_as_loaded(name):
    model = load_model(model_path(name))
    shape = Shape.of(load_config(model_path(name)))
    assert shape.parameters == sum(parameter.numel() for parameter in model.module.parameters())
    inner = model.weights.shape(model.submodule(model.down_path(0)).weight)[1]
    assert (shape.depth, shape.width, shape.inner, shape.vocabulary) == (model.depth, model.width, inner,
                                                                         model.vocabulary)
    assert model.own_head and model.output_table is not model.input_table


def test_reading_a_token_takes_two_operations_a_parameter():
    assert Shape(parameters=7).flops(10) == 140


def test_an_unknown_family_is_named_with_the_entry_to_write():
    from transformers import GPTNeoConfig

    with pytest.raises(InputError, match=r"of type 'gpt_neo'; supported types: falcon, .*t5.*families.py") as error:
        Shape.of(GPTNeoConfig())
    assert '"gpt_neo": Architecture(' in str(error.value) and 'activation="activation_function"' in str(error.value)
