"""Running text: what is read as one, and what is refused."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from itertools import islice

import pytest
import torch
from safetensors.torch import save

from editors.core.errors import InputError
from evaluators.datasets import corpus_digest, read_corpus

TEXTS = ["one", "two words", "drei Wörter, naïve"]
LINES = "one\n\n  two words \ndrei Wörter, naïve"
RECORDS = "\n".join(json.dumps({"id": number, "text": text}) for number, text in enumerate(TEXTS))


def zipped(content):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.json", content)
    return packed.getvalue()


def test_corpus_of_the_built_in_world():
    texts = list(islice(read_corpus("testbed"), 200))
    assert texts == list(islice(read_corpus("testbed"), 200))
    assert len(set(texts)) > 190
    assert all(text.endswith(".") and "{" not in text for text in texts)


@pytest.mark.parametrize(("name", "content"), [
    ("a.txt", LINES.encode()), ("a", LINES.encode()), ("a.txt", LINES.replace("\n", "\r\n").encode()),
    ("a.txt", b"\xef\xbb\xbf" + LINES.encode()), ("a.txt.gz", gzip.compress(LINES.encode(), mtime=0)),
    ("a.txt.bz2", bz2.compress(LINES.encode())), ("a.txt.xz", lzma.compress(LINES.encode())),
    ("a.jsonl", RECORDS.encode()), ("a.txt", RECORDS.encode()),
    ("a.jsonl.gz", gzip.compress(RECORDS.encode(), mtime=0)),
    ("a.json", json.dumps([{"text": text} for text in TEXTS]).encode()), ("a.json", json.dumps(TEXTS).encode()),
    ("a.json.zip", zipped(json.dumps(TEXTS).encode()))])
def test_texts_are_read_as_data_sets_are(tmp_path, name, content):
    plain = tmp_path / "plain"
    plain.write_text("\n".join(TEXTS), encoding="utf-8")
    path = tmp_path / name
    path.write_bytes(content)
    assert list(read_corpus(str(path))) == TEXTS
    assert corpus_digest(str(path)) == corpus_digest(str(plain))  # the same texts are one corpus, wherever they are


def test_a_text_may_begin_like_json(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("[sic] is Latin\n{ is a brace\n")
    assert list(read_corpus(str(path))) == ["[sic] is Latin", "{ is a brace"]


@pytest.mark.parametrize(("name", "content"), [
    ("a.txt", b"a long line of text with one\x02 stray\nanother\n"), ("a.jsonl", b'{"text": "so\\u0002 much"}\n')])
def test_a_stray_control_character_makes_no_text_another_kind_of_file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert "\2" in next(read_corpus(str(path)))


@pytest.mark.parametrize(("name", "content", "message"), [
    ("ascii.txt", bytes(range(1, 128)) * 4, "line 1.*U\\+0001"),
    ("a.safetensors", save({"weight": torch.zeros(2)}), "line 1.*U\\+0000"),
    ("noise.txt", bytes(range(256)) * 4, "not UTF-8 text"), ("nul.txt", b"abc\n\x00\x00\x01\n", "line 2.*U\\+0000"),
    ("image.png", b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8"), ("latin.txt", "naïve".encode("latin-1"), "not UTF-8"),
    ("decoded.txt", "\ufffd\ufffd \ufffd\n".encode(), "U\\+FFFD"),
    ("mistaken.txt", "\x81\x92\x93\x94".encode(), "U\\+0081"), ("a.CSV", b"id,text\n1,so\n", "is a table by its name"),
    ("a.tsv.gz", gzip.compress(b"1\tso", mtime=0), "is a table by its name"),
    ("a.txt.gz", b"no gzip", "cannot read"), ("a.jsonl", b'{"title": "x"}\n', "record 0 .*no 'text'"),
    ("a.jsonl", b'{"text": "x \\ud800"}\n', "record 0.*half of a surrogate pair"),
    ("a.jsonl", b'{"text": 3}\n', "no 'text', or one that is not a string"), ("a.json", b"[1]", "record 0"),
    ("cut.json", b'["a", "b', "cut short"), ("blank.txt", b" \n\n\t\n", "has no text"),
    ("empty.txt", b"", "has no text"),
    ("blank.jsonl", b'{"text": " "}\n', "has no text")])
def test_what_is_no_text_is_refused_by_name(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        corpus_digest(str(path))
    assert name in str(error.value)


def test_a_corpus_that_does_not_exist():
    with pytest.raises(InputError, match="'nowhere' is neither 'testbed' nor a text file"):
        read_corpus("nowhere")


def test_lines_of_one_text_are_not_texts(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text('["a\\nb"]')
    two.write_text('["a", "b"]')
    assert corpus_digest(str(one)) != corpus_digest(str(two))


def test_a_changed_text_is_another(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    before = corpus_digest(str(path))
    path.write_text("two\n")
    assert corpus_digest(str(path)) != before
