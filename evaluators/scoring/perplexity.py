"""Perplexity on running text: the probe for a model that edits have broken (METHODS 10; Yang et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from editors.core.errors import CaseError, quoted
from editors.core.models.batches import Encoded
from editors.core.models.model import LanguageModel
from editors.core.patches.overlay import UNPATCHED
from editors.core.patches.patch import Patch
from evaluators.scoring.observe import Row, answer


def perplexity(model: LanguageModel, texts: Sequence[str], patches: Sequence[Patch]) -> list[float]:
    """exp of the mean negative log-probability of a token of all texts, under each patch; infinite where not finite.

    A decoder predicts each token of a text from those before it, an encoder-decoder the second half of its words from
    the first. Texts are cut where the model's positions end. Raises `CaseError` for a text of one token.
    """
    encoded = [_encode(model, text) for text in texts]
    rows = [[Row(number if patch else UNPATCHED, each) for each in encoded] for number, patch in enumerate(patches)]
    outputs = answer(model, {row for own in rows for row in own}, patches)
    tokens = sum(len(each.target) for each in encoded)
    return [_exp(-sum(outputs[row].logprob for row in own) / tokens) for own in rows]


def _encode(model: LanguageModel, text: str) -> Encoded:
    if model.has_encoder:
        words = text.split()
        encoded = model.encode(" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2:]))
    else:
        ids = model.tokenise(text)[: model.max_length]
        encoded = Encoded(ids[:1], ids[1:])
    if not encoded.target:
        raise CaseError(f"text {quoted(text)} is too short to have a perplexity")
    return encoded


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
