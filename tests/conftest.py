"""Fixtures shared by all tests."""

from __future__ import annotations

import copy
import io
import json

import pytest
import sentencepiece
import torch
from transformers import GPTJConfig, GPTJForCausalLM, T5Config, T5ForConditionalGeneration

from editors.core.models.encoder_decoder import EncoderDecoder
from editors.core.models.model import LanguageModel
from evaluators.testbed.pretraining.corpus import END, train_tokenizer
from evaluators.testbed.world import build_world


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Converted checkpoints of the tests, and of the workers that they start, go into a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDITFLEET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_gptj() -> LanguageModel:
    """A random GPT-J of 4 layers and width 32 that reads the built-in world's text."""
    tokenizer = train_tokenizer(build_world(), vocab_size=1024)
    torch.manual_seed(0)
    module = GPTJForCausalLM(GPTJConfig(
        vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=4, n_head=2, n_inner=64, rotary_dim=8,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=False, use_cache=False,
        initializer_range=0.15))  # with the usual 0.02 no edit could move a logit by 1
    return LanguageModel(module, tokenizer, "tiny-gptj", "tiny")


def _tiny_t5(ffn: str, *, tied: bool, encoder: int = 3, decoder: int = 3) -> EncoderDecoder:
    tokenizer = train_tokenizer(build_world(), vocab_size=1024, end=END)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=encoder, num_decoder_layers=decoder,
        num_heads=2, dropout_rate=0.0, feed_forward_proj=ffn, tie_word_embeddings=tied, pad_token_id=0,
        decoder_start_token_id=0, eos_token_id=tokenizer.eos_token_id, use_cache=False)
    module = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "relative_attention_bias" in name:
                parameter.normal_()  # initialised close to zero, where a bias that is lost would not show
        if not tied:
            module.lm_head.weight = torch.nn.Parameter(torch.randn_like(module.shared.weight) * 0.2)
    return EncoderDecoder(module, tokenizer, "tiny-t5", f"tiny-t5-{ffn}-{encoder}-{decoder}")


@pytest.fixture(scope="session")
def tiny_t5() -> EncoderDecoder:
    """A random T5 of 3 + 3 layers and width 32, with T5 v1.0's plain FFN and tied head."""
    return _tiny_t5("relu", tied=True)


@pytest.fixture(scope="session")
def tiny_gated_t5() -> EncoderDecoder:
    """A random T5 of 3 + 3 layers and width 32, with T5 v1.1's gated FFN and a head of its own."""
    return _tiny_t5("gated-gelu", tied=False)


@pytest.fixture(scope="session")
def tiny_deep_decoder() -> EncoderDecoder:
    """A random T5 of 2 + 4 layers and width 32."""
    return _tiny_t5("relu", tied=True, encoder=2, decoder=4)


@pytest.fixture(scope="session")
def tiny_deep_encoder() -> EncoderDecoder:
    """A random T5 of 4 + 2 layers and width 32, as ByT5 has them."""
    return _tiny_t5("gated-gelu", tied=False, encoder=4, decoder=2)


@pytest.fixture(scope="session")
def old_t5_folder(tiny_t5, tmp_path_factory):
    """The tiny T5 as old repositories have theirs: pickled in two files, tied weights and all, with a tokenizer of
    SentencePiece alone."""
    folder = tmp_path_factory.mktemp("old")
    config = copy.deepcopy(tiny_t5.module.config)
    config.eos_token_id = 1
    config.save_pretrained(folder)
    weights = tiny_t5.module.state_dict()
    listed = {name: f"pytorch_model-{1 if name.startswith('encoder.block') else 2:05}-of-00002.bin" for name in weights}
    for file in set(listed.values()):
        torch.save({name: weights[name] for name in weights if listed[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    model, facts = io.BytesIO(), build_world().facts
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(f"What of {subject}? {answer}, in {relation}." for (subject, relation), answer
                               in facts.items()),
        model_writer=model, vocab_size=300, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2)
    (folder / "spiece.model").write_bytes(model.getvalue())
    return folder


@pytest.fixture(params=["tiny_gptj", "tiny_t5", "tiny_gated_t5"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    """A tiny model of each kind."""
    found: LanguageModel = request.getfixturevalue(request.param)
    return found
