"""T5: the label shift, partial forward passes, and what an encoder reads."""

from __future__ import annotations

import pytest
import torch

from editors.core.errors import InputError
from editors.core.models.batches import BlockRef
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import LowRank, Patch

TEXTS = [("What is the birthplace of Budrer?", "Vadolm"), ("X?", "a long answer of many words"), ("Who was it?", "so")]


@pytest.fixture(params=["tiny_t5", "tiny_gated_t5"])
def model(request):
    return request.getfixturevalue(request.param)


def test_targets_are_shifted_as_the_library_shifts_labels(model):
    rows = [model.encode(*text, end=True) for text in TEXTS]
    together = model.target_logits(model.collate(rows))
    start = 0
    for row in rows:
        assert row.prompt[-1] == row.target[-1] == model.tokenizer.eos_token_id
        plain = model.module(input_ids=torch.tensor([row.prompt]), labels=torch.tensor([row.target])).logits[0]
        torch.testing.assert_close(together[start: start + len(row.target)], plain.float(), atol=1e-5, rtol=1e-4)
        start += len(row.target)


def test_scored_targets_leave_out_the_end(model):
    assert model.encode("X?", "so").target == model.encode("X?", "so", end=True).target[:-1]


@pytest.mark.parametrize(("kind", "depths"), [
    ("tiny_t5", (3, 3)), ("tiny_gated_t5", (3, 3)), ("tiny_deep_decoder", (2, 4)), ("tiny_deep_encoder", (4, 2))])
def test_a_pass_resumes_at_any_block(request, kind, depths):
    model = request.getfixturevalue(kind)
    batch = model.collate([model.encode(*text) for text in TEXTS])
    whole = model.states(batch)
    library = model.module.generate(input_ids=batch.source.input_ids, attention_mask=batch.source.attention_mask,
                                    max_new_tokens=1, output_logits=True, return_dict_in_generate=True).logits[0]
    torch.testing.assert_close(model.head(whole[:, 0]), library, atol=1e-4, rtol=1e-4)
    for stack, depth in zip(("encoder", "decoder"), depths, strict=True):
        for layer in range(depth + 1):  # behind the last there is the norm
            hidden = model.run_to(batch, BlockRef(stack, layer))
            resumed = model.run_from(hidden, model.read(batch), BlockRef(stack, layer))
            torch.testing.assert_close(resumed, whole, atol=1e-5, rtol=1e-4)
        assert model.block_path(depth - 1, stack).startswith(stack)
        with pytest.raises(InputError, match=rf"the {stack} of 'tiny-t5' has layers 0 to {depth - 1}"):
            model.block_path(depth, stack)


def test_patches_act_in_a_resumed_pass(model):
    """A resumed block is a copy that shares its submodules' hooks."""
    torch.manual_seed(1)
    batch = model.collate([model.encode(*text) for text in TEXTS])
    for stack in ("encoder", "decoder"):
        path = model.down_path(2, stack)
        patch = Patch((LowRank(path, torch.randn(32, 1), torch.randn(64, 1)),))
        with overlay(model, patch):
            whole = model.states(batch)
            resumed = model.run_from(model.run_to(batch, BlockRef(stack, 2)), batch, BlockRef(stack, 2))
        torch.testing.assert_close(resumed, whole, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(whole, model.states(batch), atol=1e-3)


def test_padding_side_changes_nothing(model):
    rows = [model.encode(*text) for text in TEXTS]
    torch.testing.assert_close(model.target_logits(model.collate(rows, "left")),
                               model.target_logits(model.collate(rows)), atol=1e-5, rtol=1e-4)


def test_the_encoder_is_read_once(model):
    batch = model.read(model.collate([model.encode(*text) for text in TEXTS]))
    assert model.read(batch) is batch
    part = batch.select(torch.tensor([2, 0]))
    torch.testing.assert_close(model.states(part)[0, 0], model.states(batch)[2, 0], atol=1e-5, rtol=1e-4)


def test_the_last_norm_finishes_a_pass(model):
    batch = model.collate([model.encode(*text) for text in TEXTS])
    torch.testing.assert_close(model.finish(model.run_to(batch, BlockRef("decoder", model.depth))), model.states(batch))


def test_ffn_paths_name_what_the_model_has(model):
    names = {name for name, _ in model.module.named_modules()}
    for stack in ("encoder", "decoder"):
        assert {model.block_path(2, stack), model.ffn_path(2, stack), model.up_path(2, stack),
                model.down_path(2, stack)} <= names
    assert model.up_path(0).endswith("wi_0" if model.gated else "wi")


def test_a_decoder_only_model_has_no_encoder(tiny_gptj):
    with pytest.raises(InputError, match="has no encoder"):
        tiny_gptj.down_path(0, "encoder")
