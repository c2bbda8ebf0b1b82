"""A GGUF file's model answers as the model that it was made of."""

from __future__ import annotations

import pytest
import torch

from editors.core.errors import InputError
from editors.core.models.gguf import unpacked
from editors.core.models.hub import model_folder

gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")

TOKENS = [*"abcdefgh", "Ġ", "ab", "cd", "<s>", "</s>"]
MERGES = ["a b", "c d"]
HEADS, KEYS, WIDTH = 4, 2, 32


@pytest.fixture(scope="module")
def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=KEYS, max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=11,
        eos_token_id=12)).eval()


@pytest.fixture(scope="module")
def file(llama, tmp_path_factory):
    """The model as llama.cpp keeps it: queries and keys with the halves of each head's rotation interleaved."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    config, weights = llama.config, llama.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * 11 + [3, 3])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(11)
    writer.add_eos_token_id(12)

    def rotated(weight, heads):
        return weight.view(heads, 2, WIDTH // HEADS // 2, WIDTH).transpose(1, 2).reshape(weight.shape)

    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for layer in range(2):
        for ours, theirs in names.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                weight = rotated(weight, HEADS if theirs == "attn_q" else KEYS)
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", weight.numpy().copy())
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"].numpy().copy())
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"].numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_folder_is_the_model(llama, file):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = unpacked(file)
    found = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([[0, 9, 8, 10, 3]])
    with torch.no_grad():
        torch.testing.assert_close(found(ids).logits, llama(ids).logits, rtol=1e-5, atol=1e-5)
    assert found.config.tie_word_embeddings
    assert AutoTokenizer.from_pretrained(folder)("ab cd", add_special_tokens=False).input_ids == [9, 8, 10]


def test_it_is_unpacked_once_and_found_by_its_content(file, tmp_path):
    folder = unpacked(file)
    made = (folder / "config.json").stat().st_mtime_ns
    copy = tmp_path / "other.gguf"
    copy.write_bytes(file.read_bytes())
    assert model_folder(copy).path == folder and (folder / "config.json").stat().st_mtime_ns == made
    assert model_folder(copy).name == str(copy)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all", "half"])
def test_a_damaged_file_is_refused_by_name(content, file, tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(file.read_bytes()[:2000] if content == "half" else content)
    with pytest.raises(InputError, match=r"bad\.gguf"):
        unpacked(path)


def test_without_the_package_the_cure_is_told(file, monkeypatch):
    monkeypatch.setattr("editors.core.models.gguf.importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"editfleet\[gguf\]"):
        unpacked(file)
