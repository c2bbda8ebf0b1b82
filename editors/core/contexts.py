"""Short texts sampled from the model, put before a prompt so that an edit holds in more than one context."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import torch

from editors.core.batches import Encoded
from editors.core.errors import InputError
from editors.core.models import LanguageModel

TOP_K = 5


def sample_contexts(model: LanguageModel, lengths: Sequence[tuple[int, int]], seed: int) -> list[str]:
    """Prefixes for ROME's and MEMIT's prompts: the empty one, then for every (length, count) so many sampled texts.

    A text is sampled from the end-of-text token with top-k 5; `length` counts that token (Meng et al. 2022, E.5).
    Each text ends in ". ", ready for a prompt to follow. Seeded, so that a run can be repeated.
    """
    generator = torch.Generator().manual_seed(seed)
    contexts = [""]
    for length, count in lengths:
        contexts += [_prefix(text) for text in _sample(model, length - 1, count, generator)]
    return contexts


def _prefix(text: str) -> str:
    plain = " ".join(unicodedata.normalize("NFKD", text).split())
    return f"{plain}. " if plain else ""


@torch.no_grad()
def _sample(model: LanguageModel, tokens: int, count: int, generator: torch.Generator) -> list[str]:
    start = model.tokenizer.bos_token_id
    if start is None:
        raise InputError(f"the tokenizer of '{model.name}' has no start token to sample contexts from; "
                         "set `contexts: []` to edit without them")
    rows = [[int(start)] for _ in range(count)]
    for _ in range(tokens):
        batch = model.collate([Encoded(tuple(row), (0,)) for row in rows])
        values, choices = model.target_logits(batch).topk(TOP_K)
        picks = torch.multinomial(values.softmax(-1).cpu(), 1, generator=generator)
        for row, token in zip(rows, choices.cpu().gather(1, picks).flatten().tolist(), strict=True):
            row.append(token)
    return [str(model.tokenizer.decode(row[1:], skip_special_tokens=True)) for row in rows]
