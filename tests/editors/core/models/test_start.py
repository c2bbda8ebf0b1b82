"""Where texts begin: tokenizers that put a BOS before them, and SentencePiece's blank before the first word."""

from __future__ import annotations

import copy

import pytest
import torch
from support.families import VOCABULARY, tiny, tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from editors import edit_each
from editors.core.methods.contexts import sample_contexts
from editors.core.models.model import LanguageModel
from editors.core.models.statistics import second_moments
from editors.core.patches.patch import Patch
from editors.core.requests import EditRequest
from evaluators.scoring.measures.perplexity import perplexity

REQUEST = EditRequest("Where does Ann Lee live, and in what house?", "Ann Lee", "New Rome")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,?!'-é東"


def byte_level(bos):
    """As GPT-2's, or as Llama-3's: with a BOS that a template puts before texts."""
    made = copy.deepcopy(tokenizer())
    if bos:
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", made.bos_token_id)])
    return made


def sentencepiece(scheme, *, bos=True, legacy=False):
    """Letters, with blanks as SentencePiece writes them: before the first word too, unless the scheme is never.
    `legacy` is Llama-2's own, which puts the first blank into the text."""
    vocabulary = ["<unk>", "<s>", "</s>", "\u2581", "\u2581\u2581", *LETTERS, *(f"\u2581{each}" for each in LETTERS)]
    scores = [(piece, -1.0 - (len(piece) == 1)) for piece in vocabulary]
    made = Tokenizer(models.Unigram(scores, unk_id=0))
    if legacy:
        made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


TOKENIZERS = {
    "byte-level": (lambda: byte_level(bos=False), False), "byte-level with a BOS": (lambda: byte_level(bos=True), True),
    "first": (lambda: sentencepiece("first"), True), "always": (lambda: sentencepiece("always"), True),
    "never": (lambda: sentencepiece("never"), True), "no BOS": (lambda: sentencepiece("always", bos=False), False),
    "legacy": (lambda: sentencepiece("", legacy=True), True),
}


@pytest.fixture(params=TOKENIZERS)
def begun(request):
    """A tiny Llama that reads with one of the tokenizers, and whether that begins texts with a BOS."""
    make, bos = TOKENIZERS[request.param]
    llama, read = tiny("llama"), make()
    assert len(read) <= VOCABULARY
    return LanguageModel(llama.module, read, request.param, request.param), bos


def test_prompts_begin_as_the_tokenizer_has_texts_begin(begun):
    model, bos = begun
    row = model.encode(REQUEST.prompt, REQUEST.target)
    assert list(row.prompt) == model.tokenizer(REQUEST.prompt)["input_ids"]
    assert model.start == ((model.tokenizer.bos_token_id,) if bos else ())
    assert not {*model.tokenizer.all_special_ids} & {*row.target}
    assert model.encode(REQUEST.prompt, REQUEST.target, end=True) == row


@pytest.mark.parametrize("target", ["New Rome", "  so", "東", "'s", ", of New Rome", "Rome\n"])
def test_prompt_and_target_are_the_text(begun, target):
    """No blank is lost between them, and none comes to stand by itself."""
    model, _ = begun
    row = model.encode(REQUEST.prompt, target)
    text = model.tokenizer.decode(row.prompt + row.target, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert text.strip() == f"{REQUEST.prompt} {target.strip()}"
    first = model.tokenizer.convert_ids_to_tokens(row.target[0])
    assert first != "\u2581" or target == "東"  # which some read after its blank


def test_a_subject_is_found_behind_the_start(begun):
    model, _ = begun
    prompt, index = model.encode(REQUEST.prompt).prompt, model.subject_index(REQUEST)
    assert model.text_of(prompt[: index + 1]).endswith("Ann Lee")
    assert not model.text_of(prompt[:index]).endswith("Ann Lee")
    assert model.text_of(prompt).strip() == REQUEST.prompt


def test_an_edit_is_made_where_the_subject_ends(begun):
    model, _ = begun
    [patch] = edit_each(model, "rome", [REQUEST], layer=1, steps=8, contexts=[[4, 1]], covariance=False)
    [term] = patch.terms
    batch = model.collate([model.encode(REQUEST.prompt)])
    seen = []
    hook = model.submodule(model.down_path(1)).register_forward_hook(lambda _, args, output: seen.append(args[0]))
    with torch.no_grad():
        model.states(batch)
    hook.remove()
    # The direction is a mean of keys at the subject's last token, so that it is nearest to that position's.
    likeness = torch.nn.functional.cosine_similarity(seen[0][0], term.b[:, 0], dim=-1)
    assert int(likeness.argmax()) == model.subject_index(REQUEST)


def test_texts_of_corpora_begin_alike(begun):
    model, _ = begun
    text = "Where does Ann Lee live?"
    [moment] = second_moments(model, [1], [text], 1).values()
    assert moment.count == len(model.tokenizer(text)["input_ids"])
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    given = max(len(model.start), 1)
    with torch.no_grad():
        logits = model.module(input_ids=ids).logits[0, given - 1: -1]
    loss = torch.nn.functional.cross_entropy(logits, ids[0, given:])
    assert perplexity(model, [text], [Patch()]) == pytest.approx([float(loss.exp())], rel=1e-4)


def test_contexts_are_written_behind_the_start(begun):
    """And hold none of it: they come to stand before a prompt."""
    model, _ = begun
    seen = []
    hook = model.module.model.register_forward_pre_hook(lambda _, args, given: seen.append(given["input_ids"]),
                                                        with_kwargs=True)
    contexts = sample_contexts(model, [(5, 2)], 0, ["The", "I"])
    hook.remove()
    assert all(list(row[: len(model.start)]) == list(model.start) for row in seen[0].tolist())
    assert not any(token in context for context in contexts for token in model.tokenizer.all_special_tokens)
