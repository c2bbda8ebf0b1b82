"""How places are shown, and what is taken out of what others say."""

from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest

from editors.core.places import holds_secrets, scrubbed, shown, without_keys


@pytest.mark.parametrize(("place", "expected"), [
    ("https://user:password@host/x.json", "https://***@host/x.json"),
    ("https://host/x.json?X-Amz-Signature=abc&token=def", "https://host/x.json?***"),
    ("https://user@host/x.json?a=b#access_token=c", "https://***@host/x.json?***#***"),
    ("s3://AKIA:wJalr/K7MD/bPx@bucket/x", "s3://***@bucket/x"),  # a slash, as in every other key of AWS
    ("https://user:p@ss@host/x", "https://***@host/x"),
    ("zip://a.json::https://user:pw@host/a.zip?token=s", "zip://a.json::https://***@host/a.zip?***"),
    ("https://[::1]:80/x?token=s", "https://[::1]:80/x?***"),
    ("HTTPS://user:pw\nd@host/x y?q=\n", "HTTPS://***@host/x y?***"),
])
def test_user_info_and_queries_are_not_shown(place, expected):
    assert shown(place) == expected and shown(expected) == expected and holds_secrets(place)
    assert scrubbed(f"cannot read '{place}'", place) == f"cannot read '{expected}'"


@pytest.mark.parametrize("place", [
    "data/x.json", "/data/what?.json", "s3://bucket/a@b.json", "https://host/@me/x.json", "https://host:8080/@me/x",
    "memory://x", "testbed", "google/t5-v1_1-small", "https://host/x#part", "zip://a.json::b.zip"])
def test_other_places_are_shown_as_they_are(place):
    assert shown(place) == place and not holds_secrets(place) and scrubbed(f"no '{place}'", place) == f"no '{place}'"


@pytest.mark.parametrize("spell", [
    str, repr, json.dumps, lambda key: json.dumps(key).replace("/", "\\/"), lambda key: repr({"a": json.dumps(key)}),
    lambda key: quote(key, safe=""), html.escape, lambda key: key.replace("+", "\\u002B").replace("'", "\\u0027"),
    lambda key: repr(f"{key}\n".encode())])
def test_keys_are_taken_out_however_they_are_spelt(monkeypatch, spell):
    key = "sk-a/b+c'd\"e\\f"
    monkeypatch.setenv("OPENAI_API_KEY", f" {key}\n")
    said = without_keys(f"you sent Bearer {spell(key)} to us")
    assert "***" in said and not any(part in said for part in ("sk-a", "b+c", "d\"e")), said


@pytest.mark.parametrize("word", ["", "none", "unused", "whatever"])
def test_words_that_stand_for_no_key_are_left_in_texts(monkeypatch, word):
    monkeypatch.setenv("OPENAI_API_KEY", word)
    assert without_keys(f"it is {word} of these") == f"it is {word} of these"


def test_secrets_of_a_place_are_taken_out_where_no_address_is_around_them():
    said = scrubbed('no bucket "AKIA:wJalr/K7@bucket", nor wJalr%2FK7 (https://me:pw@proxy:80/)',
                    "s3://AKIA:wJalr/K7@bucket/x?token=abcdefg1")
    assert said == 'no bucket "***@bucket", nor *** (https://***@proxy:80/)'
