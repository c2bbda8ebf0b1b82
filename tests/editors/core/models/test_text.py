"""What tokenizers of every kind lose of a text."""

import copy

import pytest
from support.tokenizers import dropping, sentencepiece, word_pieces
from tokenizers import normalizers

from editors.core.errors import CaseError
from editors.core.models.text import lost_characters, mostly_lost

T5_LIKE = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " "), normalizers.Strip()])


@pytest.mark.parametrize(("tokenizer", "text", "lost"), [
    (sentencepiece(), "Where was Ann born?", ""), (sentencepiece(), "  two   blanks ", ""),
    (sentencepiece(), "東京", "東京"), (sentencepiece(), "in 東京, 東", "東京"), (sentencepiece(), "a{b}", "{}"),
    (sentencepiece(), "a\nb", "a\nb"), (sentencepiece(T5_LIKE), "a\nb", ""),
    (sentencepiece(T5_LIKE), "ﬁve e\u0301", ""), (sentencepiece(), "ﬁve", "ﬁ"),
    (sentencepiece(normalizers.Lowercase()), "ANN", ""), (sentencepiece(normalizers.Lowercase()), "ANN Ω", "Ω"),
    (dropping(), "Ann was", ""), (dropping(), "Ann, Ω", "Ω"),
    (word_pieces(), "Born in  Rome", ""), (word_pieces(), "born in 東京", "東京"),
])
def test_what_does_not_come_back_is_lost(tokenizer, text, lost):
    assert lost_characters(tokenizer, text) == lost


@pytest.mark.parametrize(("texts", "lost"), [
    (["Ann of Łódź"], ""), (["Ann {[]}"], ""), ([], ""), (["..."], ""), (["東京 is"], ""), (["東京都 is"], "東京都"),
    (["東京", "Ann was born in Rome"], ""), (["東京", "Ω", "An"], "東京Ω"), (["東京", "Ω", "Ann"], "")])
def test_nothing_is_read_where_most_letters_are_lost(texts, lost):
    assert mostly_lost(sentencepiece(), texts) == lost


def test_bytes_lose_nothing(model):
    assert model.lost("東京 {Ω}\n\t <x> 🙂 e\u0301 <|endoftext|>") == ""


def test_a_token_without_an_embedding_is_named(model):
    larger = copy.copy(model)
    larger.tokenizer = copy.deepcopy(model.tokenizer)
    larger.tokenizer.add_tokens(["Zedin"])
    number, size = len(larger.tokenizer) - 1, len(model.input_table)
    assert number == size
    for prompt, target in (("Where is Zedin?", "x"), ("Where is it?", "Zedin")):
        with pytest.raises(CaseError, match=rf"'Zedin' of .* has the id {number}, .* '{model.name}' .* {size} tokens"):
            larger.encode(prompt, target)
    assert larger.encode("Where is it?", "x") == model.encode("Where is it?", "x")


def test_half_a_character_is_refused_in_words_that_can_be_printed(model):
    with pytest.raises(CaseError, match="half a character") as caught:
        model.encode("a\ud800b")
    str(caught.value).encode()


def test_a_text_is_tokenised_once_by_each_tokenizer(model, monkeypatch):
    own = copy.copy(model)
    own.tokenizer = copy.deepcopy(model.tokenizer)
    read = []
    encode = own.tokenizer.encode
    monkeypatch.setattr(own.tokenizer, "encode", lambda text, **how: read.append(text) or encode(text, **how))
    found = [own.encode("Where is it now?", "in Rome") for _ in range(3)]
    assert len(read) == len(set(read)) == 2 and set(found) == {model.encode("Where is it now?", "in Rome")}
