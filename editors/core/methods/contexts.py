"""Short texts sampled from the model, put before a prompt so that an edit holds in more than one context."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import torch

from editors.core.errors import InputError
from editors.core.models.batches import Encoded
from editors.core.models.model import LanguageModel

TOP_K = 5


def sample_contexts(model: LanguageModel, lengths: Sequence[tuple[int, int]], seed: int,
                    starts: Sequence[str] = ()) -> list[str]:
    """Prefixes for ROME's and MEMIT's prompts: the empty one, then for every (length, count) so many sampled texts.

    A text is sampled with top-k 5, from the end-of-text token (Meng et al. 2022, E.5) or from the words in `starts`,
    which take turns (Meng et al. 2023); `length` counts the tokens it starts with. Each text ends in ". ", ready for
    a prompt to follow. Seeded, so that a run can be repeated.
    """
    generator = torch.Generator().manual_seed(seed)
    contexts = [""]
    for length, count in lengths:
        beginnings = [model.tokenise(word) for word in starts] or [_end_of_text(model)]
        rows = [list(beginnings[number % len(beginnings)]) for number in range(count)]
        contexts += [_prefix(text) for text in _sample(model, rows, length, generator)]
    return contexts


def _prefix(text: str) -> str:
    plain = " ".join(unicodedata.normalize("NFKD", text).split())
    return f"{plain}. " if plain else ""


def _end_of_text(model: LanguageModel) -> tuple[int, ...]:
    start = model.tokenizer.bos_token_id
    if start is None:
        raise InputError(f"the tokenizer of '{model.name}' has no start token to sample contexts from; "
                         "set `contexts: []` to edit without them")
    return (int(start),)


@torch.no_grad()
def _sample(model: LanguageModel, rows: list[list[int]], length: int, generator: torch.Generator) -> list[str]:
    """Grows every row to `length` tokens; the text is without special tokens."""
    while growing := [row for row in rows if len(row) < length]:
        batch = model.collate([Encoded(tuple(row), (0,)) for row in growing])
        values, choices = model.target_logits(batch).topk(TOP_K)
        picks = torch.multinomial(values.softmax(-1).cpu(), 1, generator=generator)
        for row, token in zip(growing, choices.cpu().gather(1, picks).flatten().tolist(), strict=True):
            row.append(token)
    return [str(model.tokenizer.decode(row, skip_special_tokens=True)) for row in rows]
