"""How places are told. A URL may hold a password or a signature, which no message, log or file should repeat.

Who reads from a place is given it as it is. Who shows or keeps one takes `shown`, and what libraries and servers say
goes through `scrubbed` before anybody sees it.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from urllib.parse import unquote

HIDDEN = "***"
KEYS = ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
SHORTEST, LONGEST_WORD = 6, 16  # characters
_NEXT = re.compile(r"::(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)  # fsspec's chains: zip://x.json::https://host/x.zip
_IN_TEXT = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>`]+", re.IGNORECASE)
# User info ends at the last @ where it can only be a password that has a slash in it, as AWS's keys do: no port is one.
_URL = re.compile(r"(?P<scheme>[^:/]*://)(?P<user>[^/?#]*@|[^/?#@:]*:(?!\d{1,5}(?:[/?#]|$)).*@)?(?P<path>[^?#]*)"
                  r"(?P<query>\?[^#]*)?(?P<fragment>#.*)?", re.DOTALL)


def shown(place: str) -> str:
    """A path or URL as people and files may see it: `https://***@host/x.json?***`. Paths stay as they are."""
    return "::".join(map(_shown, _NEXT.split(place)))


def holds_secrets(place: str) -> bool:
    """Whether a path or URL has user info, or a query, which may be a signature."""
    return shown(place) != place


def scrubbed(text: str, place: str = "") -> str:
    """What a library or server says, without the keys in the environment and the secrets of `place`, and with all URLs
    in it as they are shown."""
    if place:
        text = _without(_secrets_of(place), text.replace(place, shown(place)))
    return _IN_TEXT.sub(lambda url: shown(url[0]), without_keys(text))


def without_keys(text: str) -> str:
    """A text without the keys in the environment, however it spells them."""
    return _without((os.environ.get(name, "").strip() for name in KEYS), text)


def _without(secrets: Iterable[str], text: str) -> str:
    for secret in sorted({secret for secret in secrets if _may_be_secret(secret)}, key=len, reverse=True):
        text = _spelt(secret).sub(HIDDEN, text)
    return text


def _shown(url: str) -> str:
    found = _URL.fullmatch(url)
    if found is None:
        return url
    user, query, fragment = found["user"], found["query"] or "", found["fragment"] or ""
    return (found["scheme"] + (f"{HIDDEN}@" if user else "") + found["path"]
            + (f"?{HIDDEN}" if len(query) > 1 else query) + (f"#{HIDDEN}" if "=" in fragment else fragment))


def _secrets_of(place: str) -> Iterator[str]:
    """What a place hides, whole and in parts, as it stands there and decoded."""
    for url in map(_URL.fullmatch, _NEXT.split(place)):
        if url is not None:
            user = (url["user"] or "").removesuffix("@")
            parts = re.split("[?&;#]", f"{url['query'] or ''}{url['fragment'] or ''}")
            for secret in (user, user.partition(":")[2], *(part.partition("=")[2] or part for part in parts)):
                yield from {secret, unquote(secret)}


def _may_be_secret(text: str) -> bool:
    """Whether it is more than a word, such as "none" or "unused" for an endpoint that needs no key: those would be
    missed in every text."""
    return len(text) >= (LONGEST_WORD if text.isalpha() else SHORTEST)


@cache
def _spelt(secret: str) -> re.Pattern[str]:
    """Finds a secret also where it is quoted in JSON, Python, a URL or HTML."""
    return re.compile("".join(char if char.isalnum() and char.isascii() else _spellings(char) for char in secret),
                      re.IGNORECASE)


def _spellings(char: str) -> str:
    code, quoted = ord(char), "".join(f"%{byte:02x}" for byte in char.encode(errors="surrogatepass"))
    plain = {char, html.escape(char), repr(char)[1:-1], quoted}
    return rf"(?:\\*(?:{'|'.join(map(re.escape, sorted(plain, key=len, reverse=True)))})|\\+u{code:04x}|\\+x{code:02x})"
