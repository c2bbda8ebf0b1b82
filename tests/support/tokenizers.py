"""Tokenizers that lose something of a text, each in the way of one kind; the built-in models' lose nothing."""

from __future__ import annotations

import string

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

LETTERS = string.ascii_letters + string.digits + ".,?!'-é"


def sentencepiece(normaliser=None):
    """Single letters alone, as a SentencePiece model of unigrams has them; other characters are `<unk>`."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *((each, -4.0) for each in LETTERS)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    if normaliser:
        tokenizer.normalizer = normaliser
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>")


def dropping():
    """A BPE of characters without an unknown token: it leaves out what it does not know."""
    vocabulary = {each: number for number, each in enumerate(LETTERS + " ")}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab=vocabulary, merges=[])))


def word_pieces():
    """Lower-case words and letters; a word with another character is `[UNK]` as a whole."""
    pieces = ["[UNK]", "was", "born", "in", "rome", *LETTERS.lower()]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(dict.fromkeys(pieces))},
                                           unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
