"""Free generation: what a model, edited or not, writes on after a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from editors.core.models.batches import Encoded
from editors.core.models.model import LanguageModel

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Decoding:
    """How to choose tokens: at most `tokens` of them, greedily, or of the `top_k` most probable at random from `seed`.

    A row is done at the first of the `stop` texts that comes after as many characters as the row is sure to need.
    """

    tokens: int
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    seed: int = 0


@torch.no_grad()
def generate(model: LanguageModel, prompts: Sequence[Encoded], decoding: Decoding,
             needed: Sequence[int] | None = None) -> list[str]:
    """The text that follows each prompt, without the prompt and without the end token.

    Call it inside `overlay` for an edited model: one batch, its rows in the order of `prompts`. Prompts in the scope of
    a `Route` term are answered by its side model. `needed[i]` are characters of row i that no stop text may cut short.
    """
    needed = needed or [0] * len(prompts)
    rows = [Encoded(prompt.prompt, ()) for prompt in prompts]
    texts = _generate(model, rows, decoding, needed)
    if model.router is not None:
        for number, side, row in model.router.answered_elsewhere(rows):
            (texts[number],) = _generate(side, [row], decoding, [needed[number]])
    return texts


def _generate(model: LanguageModel, rows: Sequence[Encoded], decoding: Decoding, needed: Sequence[int]) -> list[str]:
    """By the Hugging Face library; hooks on the model's modules work as in any forward pass."""
    batch = model.collate(rows, padding="left")
    read = batch.source or batch
    start = 1 if model.has_encoder else read.input_ids.shape[1]
    end = model.module.config.eos_token_id
    pad = end if model.module.config.pad_token_id is None else model.module.config.pad_token_id
    stopping = StoppingCriteriaList([_Stopped(model, start, decoding.stop, needed)] if decoding.stop else [])
    tokens = decoding.tokens
    if not model.has_encoder and model.max_length is not None:
        tokens = max(1, min(tokens, model.max_length - start))  # no more than the model has positions left for
    choose: dict[str, Any] = {"do_sample": False}
    if decoding.top_k is not None:
        choose = {"do_sample": True, "top_k": decoding.top_k, "top_p": 1.0, "temperature": 1.0}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(decoding.seed)
        ids = model.module.generate(
            input_ids=read.input_ids, attention_mask=read.attention_mask, max_new_tokens=tokens,
            pad_token_id=pad, use_cache=True, stopping_criteria=stopping, num_beams=1, **choose)
    return [_decode(model, row) for row in ids[:, start:]]


def _decode(model: LanguageModel, ids: Tensor) -> str:
    return str(model.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class _Stopped(StoppingCriteria):
    """Ends a row at its first stop text."""

    def __init__(self, model: LanguageModel, start: int, stop: Sequence[str], needed: Sequence[int]) -> None:
        self.model, self.start, self.stop, self.needed = model, start, stop, needed

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        texts = [_decode(self.model, row).lstrip()[count:]
                 for row, count in zip(input_ids[:, self.start:], self.needed, strict=True)]
        return torch.tensor([any(stop in text for stop in self.stop) for text in texts], device=input_ids.device)
