"""The tanh gelu is the library's, and keeps its input alone for the gradient."""

import pytest
import torch
from support.families import tiny
from transformers import AutoModelForCausalLM
from transformers.activations import ACT2FN

from cluster.plan.refs import ModelRef
from editors.core.models.activations import activation_function
from editors.core.models.layouts import TANH_GELU
from editors.core.models.model import LanguageModel


def kept(function, x):
    """Bytes that the gradient of a function needs."""
    sizes = {}
    with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.update({t.untyped_storage().data_ptr(): t.nbytes}), t)[1], lambda t: t):
        function(x.requires_grad_()).sum()
    return sum(sizes.values())


@pytest.mark.parametrize("name", TANH_GELU)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_it_is_the_same_function(name, dtype):
    odd = torch.tensor([0.0, -0.0, 1e-30, 30.0, -30.0, 1e4, -1e4, 1e38, -1e38, torch.inf, -torch.inf, torch.nan])
    x = torch.cat([torch.randn(3000) * 3, odd]).to(dtype)
    wanted = ACT2FN[name](x.double())
    close = {"rtol": max(4 * torch.finfo(dtype).eps, 1e-8), "atol": 4 * torch.finfo(dtype).eps, "equal_nan": True}
    for asked in (x, x.clone().requires_grad_()):
        torch.testing.assert_close(activation_function(name)(asked).detach().double(), wanted, **close)


@pytest.mark.parametrize("name", TANH_GELU)
def test_its_gradients_are_the_same(name):
    x = (torch.randn(50, 64, dtype=torch.float64) * 3).requires_grad_()
    ours, theirs = (torch.autograd.grad(function(x).square().sum(), x, create_graph=True)[0]
                    for function in (activation_function(name), ACT2FN[name]))
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(*(torch.autograd.grad(first.sum(), x)[0] for first in (ours, theirs)),
                               rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", TANH_GELU)
def test_it_keeps_its_input_alone(name):
    x = torch.randn(50, 64)
    assert kept(activation_function(name), x) == x.nbytes
    assert kept(ACT2FN[name], x) >= (1 if name == "gelu_pytorch_tanh" else 3) * x.nbytes


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
