"""Models with tokenizers of the real kinds, trained here: GPT-J's byte-level BPE, whose tokens hold the space before
them and which has no start of its own, and T5's SentencePiece. What is encoded is held against the trainers' own
encoders on plain strings."""

from __future__ import annotations

import io

import pytest
import sentencepiece
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2TokenizerFast, GPTJConfig, GPTJForCausalLM, T5Config, T5ForConditionalGeneration

from editors import edit_each
from editors.core.models.loading import load_model
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Patch
from editors.core.requests import EditRequest

END = "<|endoftext|>"
TEXTS = ["The capital of France is Paris.", "France is it.", "Watts Humphrey went to Trinity College in Dublin.",
         "Who is Ann Lee's boss?", "Where was Ann-Marie O'Neill born? In São Paulo.",
         "Łódź is a city; so is 東京, and New York City too!"]
REQUESTS = [  # with the subject's last token: a word of one token, and of several; with a hyphen, an accent, bytes
    EditRequest("The capital of France is", "France", "Ann Arbor"),
    EditRequest("Ann Lee works at", "Ann Lee", "Trinity College"),
    EditRequest("What university did Watts Humphrey attend?", "Watts Humphrey", "Xyzzy"),
    EditRequest("Where was Ann-Marie O'Neill, the writer, born?", "Ann-Marie O'Neill", "São Paulo"),
    EditRequest("Who is Ann Lee's boss? The boss of Ann Lee", "Ann Lee", "Łódź", subject_start=35),
    EditRequest("東京 is in", "東京", "New York"),
    EditRequest("The mayor of São", "São", "  Paris "),
]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS * 4, vocab_size=400, min_frequency=2, special_tokens=[END], show_progress=False)
    return trained


@pytest.fixture(scope="module")
def gptj(bpe, tmp_path_factory):
    """A folder as GPT-J's: the tokenizer as two files, and more embeddings than tokens."""
    folder = tmp_path_factory.mktemp("gptj")
    bpe.save_model(str(folder))
    tokenizer = GPT2TokenizerFast.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    GPTJForCausalLM(GPTJConfig(
        vocab_size=len(tokenizer) + 43, n_positions=64, n_embd=32, n_layer=3, n_head=2, n_inner=64, rotary_dim=8,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=False,
        initializer_range=0.15)).save_pretrained(folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def pieces():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4), model_writer=model, vocab_size=90, hard_vocab_limit=False, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture(scope="module")
def t5(pieces, tmp_path_factory):
    """A folder as T5's: `spiece.model` alone, and embeddings for the 100 sentinels behind its pieces."""
    folder = tmp_path_factory.mktemp("t5")
    (folder / "spiece.model").write_bytes(pieces.serialized_model_proto())
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(
        vocab_size=pieces.vocab_size() + 100 + 28, d_model=32, d_kv=16, d_ff=64, num_layers=3,
        num_heads=2, decoder_start_token_id=0)).save_pretrained(folder)
    return load_model(folder)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.subject)
def test_byte_level_bpe(gptj, bpe, request_):
    """Apart, prompt and target are the tokens of the whole text, with no start and no end."""
    encoded = gptj.encode(request_.prompt, request_.target)
    target = f" {request_.target.strip()}"
    assert list(encoded.prompt + encoded.target) == bpe.encode(request_.prompt + target).ids
    assert list(encoded.prompt) == bpe.encode(request_.prompt).ids
    assert gptj.tokenizer.decode(encoded.target) == target
    assert gptj.encode(request_.prompt, request_.target, end=True) == encoded
    assert gptj.encode(f"{request_.prompt} \n", target) == encoded
    upto = bpe.encode(request_.prompt[: request_.subject_end]).ids
    assert gptj.subject_index(request_) == len(upto) - 1


def test_words_are_other_tokens_behind_a_space(gptj, bpe):
    [first], [inner] = gptj.encode("France").prompt, gptj.encode("The", "France").target
    assert [bpe.id_to_token(token) for token in (first, inner)] == ["France", "ĠFrance"]
    assert not gptj.lost("東京, Łódź and 🙂")  # bytes say everything


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.subject)
def test_sentencepiece(t5, pieces, request_):
    """A prompt ends in the end token, and a target where it is learned; its first piece opens a word."""
    encoded = t5.encode(request_.prompt, request_.target)
    target = pieces.encode(request_.target.strip())
    assert list(encoded.prompt) == [*pieces.encode(request_.prompt), pieces.eos_id()]
    assert list(encoded.target) == target and pieces.id_to_piece(target[0]).startswith("▁")
    assert list(t5.encode(request_.prompt, request_.target, end=True).target) == [*target, pieces.eos_id()]
    upto = pieces.encode(request_.prompt[: request_.subject_end])
    assert t5.subject_index(request_) == len(upto) - 1


def test_a_t5_reads_targets_behind_its_start_token_and_prompts_with_their_end(t5, pieces):
    """The library's own loss on whole sequences, and the losses of the tokens one by one."""
    rows = [t5.encode(request.prompt, request.target, end=True) for request in REQUESTS]
    losses = t5.target_nll(t5.states(t5.collate(rows)), t5.collate(rows)).split([len(row.target) for row in rows])
    for request, loss in zip(REQUESTS, losses, strict=True):
        labels = torch.tensor([[*pieces.encode(request.target.strip()), pieces.eos_id()]])
        asked = torch.tensor([[*pieces.encode(request.prompt), pieces.eos_id()]])
        torch.testing.assert_close(loss.mean(), t5.module(input_ids=asked, labels=labels).loss, atol=1e-5, rtol=1e-5)


def test_sentinels_are_single_tokens_behind_the_pieces(t5, pieces):
    ids = t5.encode("The capital of <extra_id_0> is Paris").prompt
    assert len([token for token in ids if token >= pieces.vocab_size()]) == 1
    around = pieces.encode("The capital of"), pieces.encode("is Paris")
    assert list(ids[: len(around[0])]) == around[0] and list(ids[-len(around[1]) - 1: -1]) == around[1]


def losses(model, requests, patches):
    """Each request's mean loss per target token, under its own patch."""
    rows = [model.encode(request.prompt, request.target) for request in requests]
    batch = model.collate(rows)
    with overlay(model, patches, rows=range(len(rows))):
        found = model.target_nll(model.states(batch), batch)
    return torch.stack([part.mean() for part in found.split([len(row.target) for row in rows])])


@pytest.mark.parametrize(("kind", "editor", "settings"), [
    ("gptj", "rome", {"layer": 1, "steps": 40, "contexts": [[4, 2]], "covariance": False, "clamp": 50.0}),
    ("gptj", "ft", {"layers": [1], "steps": 60, "lr": 5e-3, "objective": "target_new"}),
    ("t5", "ft", {"layers": [1], "steps": 60, "lr": 1e-2, "objective": "target_new"})],
    ids=["gptj-rome", "gptj-ft", "t5-ft"])
def test_an_edit_has_the_target_follow_as_the_tokenizer_writes_it(request, kind, editor, settings):
    model = request.getfixturevalue(kind)
    # What ROME writes at the subject hardly reaches other positions of a random model.
    requests = [each for each in REQUESTS if editor != "rome" or each.prompt.endswith(each.subject)]
    before = losses(model, requests, [Patch()] * len(requests))
    assert (losses(model, requests, edit_each(model, editor, requests, **settings)) < 0.75 * before).all()
