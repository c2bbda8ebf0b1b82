"""Tokens, padding and partial forward passes."""

import pytest
import torch

from editors.core.errors import CaseError, InputError
from editors.core.models.batches import BlockRef
from editors.core.models.capture import capture_inputs
from editors.core.models.loading import load_model
from editors.core.models.model import LanguageModel

TEXTS = [("The birthplace of Budrer is", "Vadolm"), ("X", "a long answer of many words"), ("It was", "so")]


def test_prompt_and_target_are_tokenised_apart(tiny_gptj):
    encoded = tiny_gptj.encode("It was ", " so")
    assert tiny_gptj.tokenizer.decode(encoded.prompt) == "It was"
    assert tiny_gptj.tokenizer.decode(encoded.target) == " so"


def test_too_long_and_empty_texts_are_case_errors(tiny_gptj):
    with pytest.raises(CaseError, match=f"reads at most {tiny_gptj.max_length}"):
        tiny_gptj.encode("word " * tiny_gptj.max_length, "so")
    with pytest.raises(CaseError, match="prompt is empty"):
        tiny_gptj.encode("  ", "so")


def test_target_logits_predict_each_target_token_from_what_precedes_it(tiny_gptj):
    rows = [tiny_gptj.encode(*text) for text in TEXTS]
    together = tiny_gptj.target_logits(tiny_gptj.collate(rows))
    start = 0
    for row in rows:
        ids = torch.tensor([row.prompt + row.target])
        plain = tiny_gptj.module(input_ids=ids).logits[0, len(row.prompt) - 1: -1]
        torch.testing.assert_close(together[start: start + len(row.target)], plain, atol=1e-5, rtol=1e-4)
        start += len(row.target)


def test_padding_side_does_not_matter(tiny_gptj):
    rows = [tiny_gptj.encode(*text) for text in TEXTS]
    right, left = (tiny_gptj.target_logits(tiny_gptj.collate(rows, padding)) for padding in ("right", "left"))
    torch.testing.assert_close(right, left, atol=1e-5, rtol=1e-4)


def test_run_blocks_continues_from_any_block(tiny_gptj):
    batch = tiny_gptj.collate([tiny_gptj.encode(*text) for text in TEXTS])
    paths = [tiny_gptj.block_path(layer) for layer in range(tiny_gptj.depth)]
    with capture_inputs(tiny_gptj, paths) as inputs:
        states = tiny_gptj.states(batch)
    real = batch.attention_mask.bool()
    for layer, path in enumerate(paths):
        assert torch.equal(tiny_gptj.run_from(inputs[path], batch, BlockRef("decoder", layer))[real], states[real])
    assert len(tiny_gptj.module.transformer.h) == tiny_gptj.depth  # the model itself was not cut


def test_selected_rows_are_the_batch_of_those_rows(tiny_gptj):
    batch = tiny_gptj.collate([tiny_gptj.encode(*text) for text in TEXTS])
    part = batch.select(torch.tensor([2, 1]))
    logits, whole = tiny_gptj.target_logits(part), tiny_gptj.target_logits(batch)
    expected = torch.cat([whole[batch.row == 1], whole[batch.row == 2]])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    assert part.first_position.tolist() == [len(tiny_gptj.encode(*TEXTS[i]).prompt) - 1 for i in (2, 1)]


def test_loading_a_folder_gives_the_same_model(tiny_gptj, tmp_path):
    tiny_gptj.module.save_pretrained(tmp_path)
    tiny_gptj.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, name="again")
    batch = tiny_gptj.collate([tiny_gptj.encode(*text) for text in TEXTS])
    assert torch.equal(loaded.target_logits(batch), tiny_gptj.target_logits(batch))
    before = loaded.digest
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert load_model(tmp_path).digest != before


def test_errors_name_the_model(tiny_gptj, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(InputError, match="layer 99 does not exist"):
        tiny_gptj.block_path(99)


def test_unsupported_architectures_are_refused():
    from transformers import BloomConfig, BloomForCausalLM

    module = BloomForCausalLM(BloomConfig(hidden_size=8, n_layer=1, n_head=1, vocab_size=16))
    with pytest.raises(InputError, match="type 'bloom'; supported types: falcon"):
        LanguageModel(module, None, "other")
