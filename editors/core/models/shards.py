"""How a text is dealt out for second moments. Plans name shards, and load no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

VERSION = 2  # grows when moments of the same text change


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 0, of a pass over a text: every `count`-th text, and a share of the
    tokens. Shards have no text in common; the sum of their moments is that of one pass over the texts of them all."""

    number: int = 0
    count: int = 1

    def texts(self, texts: Iterable[str]) -> Iterator[str]:
        return islice(texts, self.number, None, self.count)

    def tokens(self, tokens: int) -> int:
        """Its share; the shares add up to the whole."""
        return tokens // self.count + (self.number < tokens % self.count)


WHOLE = Shard()
