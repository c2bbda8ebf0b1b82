"""Short texts sampled from the model, put before a prompt so that an edit holds in more than one context."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

from editors.core.errors import InputError
from editors.core.methods.writing import write
from editors.core.models.model import LanguageModel

TOP_K = 5


def sample_contexts(model: LanguageModel, lengths: Sequence[tuple[int, int]], seed: int,
                    starts: Sequence[str] = ()) -> list[str]:
    """Prefixes for ROME's and MEMIT's prompts: the empty one, then for every (length, count) so many sampled texts.

    A text is sampled with top-k 5, from the end-of-text token (Meng et al. 2022, E.5) or from the words in `starts`,
    which take turns (Meng et al. 2023, published code); `length` counts the tokens it starts with. Each text ends in
    ". ", ready for a prompt to follow. Seeded, so that a run can be repeated. Raises `InputError` where a text should
    start with the end-of-text token and the tokenizer has none.
    """
    generator = torch.Generator().manual_seed(seed)

    def sample(logits: Tensor) -> Tensor:
        values, tokens = logits.topk(TOP_K)
        picks = torch.multinomial(values.softmax(-1).cpu(), 1, generator=generator)
        return tokens.cpu().gather(1, picks)[:, 0]

    contexts = [""]
    for length, count in lengths:
        words = [model.tokenise(word) for word in starts]
        beginnings = [(model.start + word, len(word)) for word in words] or [(_end_of_text(model), 1)]
        rows, given = zip(*(beginnings[number % len(beginnings)] for number in range(count)), strict=True)
        written = write(model, rows, [length - tokens for tokens in given], sample)
        for row, tokens in zip(rows, written, strict=True):
            text = str(model.tokenizer.decode([*row, *tokens], skip_special_tokens=True))
            plain = " ".join(unicodedata.normalize("NFKD", text).split())
            contexts.append(f"{plain}. " if plain else "")
    return contexts


def _end_of_text(model: LanguageModel) -> tuple[int, ...]:
    start = next((token for token in (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id)
                  if token is not None), None)
    if start is None:
        raise InputError(f"the tokenizer of '{model.name}' has no start or end token to sample contexts from; "
                         "set `contexts: []` to edit without them")
    return (int(start),)
