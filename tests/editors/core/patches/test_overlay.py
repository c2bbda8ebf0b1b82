"""Patches: an overlay equals changed weights, row by row, and leaves no trace."""

import copy

import pytest
import torch

from editors.core.errors import InputError
from editors.core.models.model import LanguageModel
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import GATHER_RANK, Dense, LowRank, Neurons, Patch

TEXTS = [("The birthplace of Budrer is", "Vadolm"), ("X", "an answer"), ("It was", "so"), ("As for Art, it is", "so")]


def low_rank(model, layer, seed, rank=1, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    out, width = model.submodule(model.down_path(layer)).weight.shape
    return LowRank(model.down_path(layer), scale * torch.randn(out, rank, generator=generator),
                   torch.randn(width, rank, generator=generator))


def dense(model, layer, seed, bias=True):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(*model.submodule(model.down_path(layer)).weight.shape, generator=generator) / 10
    return Dense(model.down_path(layer), weight, torch.randn(weight.shape[0], generator=generator) if bias else None)


def mutated(model, patch):
    """A copy of the model whose weights were changed by hand."""
    module = copy.deepcopy(model.module)
    for term in patch.terms:
        linear = module.get_submodule(term.module)
        if isinstance(term, LowRank):
            linear.weight.data += term.a @ term.b.T
        else:
            linear.weight.data += term.weight
            if term.bias is not None:
                linear.bias.data += term.bias
    return LanguageModel(module, model.tokenizer, "mutated")


def logits(model, rows=TEXTS):
    return model.target_logits(model.collate([model.encode(*row) for row in rows]))


def patches_of(model):
    return {
        "low rank": Patch((low_rank(model, 1, 1),)),
        "rank above the gather limit": Patch((low_rank(model, 2, 2, GATHER_RANK["cuda"] + 3, 0.1),)),
        "dense": Patch((dense(model, 0, 3),)),
        "dense without bias": Patch((dense(model, 3, 4, bias=False),)),
        "several layers": Patch((low_rank(model, 0, 5), dense(model, 2, 6), low_rank(model, 2, 7, 2))),
        "one module twice": Patch((low_rank(model, 1, 8), low_rank(model, 1, 9), dense(model, 1, 10))),
    }


@pytest.mark.parametrize("kind", ["low rank", "rank above the gather limit", "dense", "dense without bias",
                                  "several layers", "one module twice"])
def test_overlay_equals_changed_weights(tiny_gptj, kind):
    patch = patches_of(tiny_gptj)[kind]
    with overlay(tiny_gptj, patch):
        inside = logits(tiny_gptj)
    torch.testing.assert_close(inside, logits(mutated(tiny_gptj, patch)), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(inside, logits(tiny_gptj), atol=1e-3)


@pytest.mark.parametrize("rank", [0, GATHER_RANK["cuda"]])
def test_rows_of_one_batch_carry_different_patches(tiny_gptj, monkeypatch, rank):
    """Whether run by run, as on a CPU, or what is small in one product."""
    monkeypatch.setitem(GATHER_RANK, "cpu", rank)
    patches = list(patches_of(tiny_gptj).values())
    rows, numbers = TEXTS * 2, [3, -1, 0, 5, 4, 4, 1, 2]
    with overlay(tiny_gptj, patches, numbers):
        together = logits(tiny_gptj, rows)
    start = 0
    for row, number in zip(rows, numbers, strict=True):
        model = tiny_gptj if number < 0 else mutated(tiny_gptj, patches[number])
        alone = logits(model, [row])
        torch.testing.assert_close(together[start: start + len(alone)], alone, atol=2e-5, rtol=1e-4)
        start += len(alone)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_neurons_in_one_product_equal_run_by_run(tiny_gptj, monkeypatch, activation):
    generator = torch.Generator().manual_seed(1)

    def neurons(count, own, bias):
        keys, values = (torch.randn(*size, generator=generator) for size in ((count, 32), (32, count)))
        return Patch((Neurons(tiny_gptj.ffn_path(2), keys, values, own, torch.randn(count) if bias else None),))

    patches = [neurons(1, activation, True), neurons(3, "relu", False), neurons(2, activation, False)]
    rows, numbers = TEXTS * 2, [0, 0, -1, 2, 1, 1, 0, 2]
    found = []
    for rank in (0, 16):
        monkeypatch.setitem(GATHER_RANK, "cpu", rank)
        with overlay(tiny_gptj, patches, numbers):
            found.append(logits(tiny_gptj, rows))
    torch.testing.assert_close(*found, atol=2e-5, rtol=1e-4)
    assert (found[0] - logits(tiny_gptj, rows)).abs().max() > 0.1


def test_nothing_remains_afterwards(tiny_gptj):
    before, weights = logits(tiny_gptj), {k: v.clone() for k, v in tiny_gptj.module.state_dict().items()}
    with overlay(tiny_gptj, patches_of(tiny_gptj)["several layers"]):
        logits(tiny_gptj)
    assert torch.equal(logits(tiny_gptj), before)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in tiny_gptj.module.state_dict().items())


def test_hooks_go_even_when_the_body_or_the_forward_fails(tiny_gptj):
    def hooks():
        return [list(module._forward_hooks) for module in tiny_gptj.module.modules()]

    before = logits(tiny_gptj)
    own = hooks()  # the library's, once somebody has asked it for hidden states
    with pytest.raises(ZeroDivisionError), overlay(tiny_gptj, patches_of(tiny_gptj)["dense"]):
        1 / 0  # noqa: B018
    with (pytest.raises(ValueError, match=r"overlay has 2 rows, but .* got a batch of 4"),
          overlay(tiny_gptj, [patches_of(tiny_gptj)["dense"]], [0, 0])):
        logits(tiny_gptj)
    assert hooks() == own
    assert torch.equal(logits(tiny_gptj), before)


def test_several_patches_need_rows(tiny_gptj):
    with pytest.raises(ValueError, match="need `rows`"), overlay(tiny_gptj, [Patch(), Patch()]):
        pass


def test_composition_and_nesting_add_up(tiny_gptj):
    first, second = patches_of(tiny_gptj)["several layers"], patches_of(tiny_gptj)["one module twice"]
    with overlay(tiny_gptj, first + second):
        composed = logits(tiny_gptj)
    with overlay(tiny_gptj, first), overlay(tiny_gptj, [second], [0] * len(TEXTS)):
        nested = logits(tiny_gptj)
    torch.testing.assert_close(composed, nested, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(composed, logits(mutated(mutated(tiny_gptj, first), second)), atol=2e-5, rtol=1e-4)
    with overlay(tiny_gptj, Patch()):
        assert torch.equal(logits(tiny_gptj), logits(tiny_gptj))


def test_gradients_reach_the_terms(tiny_gptj):
    terms = [low_rank(tiny_gptj, 1, seed) for seed in range(2)]
    for term in terms:
        term.a.requires_grad_()
    with overlay(tiny_gptj, [Patch((term,)) for term in terms], [0, 1, 0, -1]):
        logits(tiny_gptj).sum().backward()
    assert all(term.a.grad is not None and term.a.grad.abs().max() > 0 for term in terms)
    assert all(parameter.grad is None for parameter in tiny_gptj.module.parameters())


def test_bf16_models_take_fp32_patches(tiny_gptj):
    model = LanguageModel(copy.deepcopy(tiny_gptj.module).bfloat16(), tiny_gptj.tokenizer, "bf16")
    patch = patches_of(tiny_gptj)["several layers"]
    with overlay(model, [patch], [0, 0, -1, 0]):
        assert logits(model).isfinite().all()


@pytest.mark.parametrize("kind", ["several layers", "dense without bias"])
def test_saved_patches_come_back(tiny_gptj, tmp_path, kind):
    patch = Patch(patches_of(tiny_gptj)[kind].terms, {"editor": "test", "loss": 0.5})
    patch.save(tmp_path / "edit.safetensors")
    loaded = Patch.load(tmp_path / "edit.safetensors")
    with overlay(tiny_gptj, patch):
        expected = logits(tiny_gptj)
    with overlay(tiny_gptj, loaded):
        assert torch.equal(logits(tiny_gptj), expected)
    assert loaded.info == {"editor": "test", "loss": 0.5}
    assert [file.name for file in tmp_path.iterdir()] == ["edit.safetensors"]


def test_empty_patch_saves_and_is_false(tmp_path):
    Patch().save(tmp_path / "none.safetensors")
    assert not Patch.load(tmp_path / "none.safetensors")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no patch file"):
        Patch.load(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("not a tensor")
    with pytest.raises(InputError, match="not a safetensors file"):
        Patch.load(tmp_path / "text.safetensors")
    from safetensors.torch import save_file
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="is no patch file"):
        Patch.load(tmp_path / "other.safetensors")


def test_finite_and_size(tiny_gptj):
    patch = Patch((low_rank(tiny_gptj, 1, 1),))
    assert patch.is_finite and not Patch((LowRank("m", torch.tensor([[torch.nan]]), torch.ones(1, 1)),)).is_finite
    assert patch.nbytes == 4 * sum(tiny_gptj.submodule(tiny_gptj.down_path(1)).weight.shape)
