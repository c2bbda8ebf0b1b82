"""The fused activation function is the composed one, and keeps a quarter of it for the gradient."""

import pytest
import torch
from support.families import tiny
from transformers import AutoModelForCausalLM
from transformers.activations import ACT2FN

from cluster.plan.refs import ModelRef
from editors.core.models.activations import activation_function
from editors.core.models.layouts import COMPOSED
from editors.core.models.model import LanguageModel


def kept(function, x):
    """Bytes that the gradient of a function needs."""
    sizes = {}
    with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.update({t.untyped_storage().data_ptr(): t.nbytes}), t)[1], lambda t: t):
        function(x.requires_grad_()).sum()
    return sum(sizes.values())


@pytest.mark.parametrize("name", COMPOSED)
def test_it_is_the_same_function_and_keeps_less(name):
    x = torch.randn(50, 64, dtype=torch.float64) * 3
    fused, composed = activation_function(name), ACT2FN[name]
    torch.testing.assert_close(fused(x), composed(x), rtol=1e-7, atol=1e-7)
    assert kept(fused, x) == x.nbytes and kept(composed, x) >= 3 * x.nbytes


@pytest.mark.parametrize("family", ["gptj", "gpt2"])
def test_models_get_it(family):
    """Both families' configurations say `gelu_new`, whose logits the library computes for comparison."""
    model = tiny(family)
    plain = AutoModelForCausalLM.from_config(model.module.config).eval()
    plain.load_state_dict(model.module.state_dict())
    composed = type(ACT2FN["gelu_new"])
    assert any(isinstance(part, composed) for part in plain.modules())
    assert not any(isinstance(part, composed) for part in model.module.modules())
    ids = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        torch.testing.assert_close(model.module(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)


def test_others_keep_theirs():
    model = tiny("opt")
    before = [type(part) for part in model.module.modules()]
    LanguageModel(model.module, model.tokenizer, "again")
    assert [type(part) for part in model.module.modules()] == before


def test_tasks_on_such_a_model_are_others():
    config = tiny("gptj").module.config
    fused = ModelRef.of("path", "digest", "float32", config, 1)
    other = ModelRef.of("path", "digest", "float32", tiny("opt").module.config, 1)
    assert fused.key == "digest-float32-fused" and other.key == "digest-float32"
