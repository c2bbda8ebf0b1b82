"""Free generation: what a model, edited or not, writes on after a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from editors.core.models.batches import Encoded
from editors.core.models.model import LanguageModel
from editors.core.models.parts import shallow
from evaluators.scoring.answers import stops

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Decoding:
    """How to choose tokens: at most `tokens` of them, greedily, or of the `top_k` most probable at random from `seed`.

    A row is done at the first of the `stop` texts, or at a later one where it may pass some over.
    """

    tokens: int
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    seed: int = 0

    def room(self, model: LanguageModel, prompt: Encoded) -> int:
        """Most tokens that follow a prompt: no more than the model has positions left for, but one at least."""
        if model.has_encoder or model.max_length is None:
            return self.tokens
        return max(1, min(self.tokens, model.max_length - len(prompt.prompt)))


    def nbytes(self, model: LanguageModel, prompt: int) -> float:
        """Bytes of a row whose prompt has so many tokens: what a block makes of it, and keys and values of all."""
        depth = model.bytes.shape.depth
        return prompt * model.bytes.passing + (prompt + self.tokens) * model.bytes.cached(depth) + model.bytes.logits


@torch.no_grad()
def generate(model: LanguageModel, prompts: Sequence[Encoded], decoding: Decoding,
             passed: Sequence[int] | None = None) -> list[str]:
    """The text that follows each prompt, without the prompt and without the end token; it ends where the model's
    outputs are not finite.

    Call it inside `overlay` for an edited model: one batch, its rows in the order of `prompts`. Prompts in the scope of
    a `Route` term are answered by its side model. Row i passes over its first `passed[i]` stop texts. Raises
    `ValueError` for prompts that have not the same `room`: a long one must not take it from a short one.
    """
    passed = passed or [0] * len(prompts)
    rows = [Encoded(prompt.prompt, ()) for prompt in prompts]
    texts = _generate(model, rows, decoding, passed)
    if model.router is not None:
        for number, side, row in model.router.answered_elsewhere(rows):
            (texts[number],) = _generate(side, [row], decoding, [passed[number]])
    return texts


def _generate(model: LanguageModel, rows: Sequence[Encoded], decoding: Decoding, passed: Sequence[int]) -> list[str]:
    """By the Hugging Face library, whose settings in the model's folder (`generation_config.json`) play no part; hooks
    on the model's modules work as in any forward pass."""
    (tokens,) = {decoding.room(model, row) for row in rows}
    config = model.module.config
    batch = model.collate(rows, padding="left")
    read = batch.source or batch
    start = 1 if model.has_encoder else read.input_ids.shape[1]
    end = config.eos_token_id
    module: Any = shallow(model.module)
    module.generation_config = GenerationConfig(
        eos_token_id=end, pad_token_id=end if config.pad_token_id is None else config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id if model.has_encoder else None)
    stopping = StoppingCriteriaList([_Stopped(model, start, decoding.stop, passed)] if decoding.stop else [])
    choose: dict[str, Any] = {"do_sample": False}
    if decoding.top_k is not None:
        choose = {"do_sample": True, "top_k": decoding.top_k, "top_p": 1.0, "temperature": 1.0}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(decoding.seed)
        ids = module.generate(
            input_ids=read.input_ids, attention_mask=read.attention_mask, max_new_tokens=tokens, use_cache=True,
            stopping_criteria=stopping, num_beams=1, logits_processor=LogitsProcessorList([_EndsNonsense(end)]),
            **choose)
    return [_decode(model, row, end) for row in ids[:, start:]]


def _decode(model: LanguageModel, ids: Tensor, end: int) -> str:
    """The text of a row up to its end token: what comes after depends on how long the batch goes on."""
    written = ids.tolist()
    written = written[: written.index(end)] if end in written else written
    return str(model.tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class _Stopped(StoppingCriteria):
    """Ends a row at the first stop text that it may not pass over."""

    def __init__(self, model: LanguageModel, start: int, stop: Sequence[str], passed: Sequence[int]) -> None:
        self.model, self.start, self.stop, self.passed = model, start, stop, passed

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        end = self.model.module.config.eos_token_id
        texts = [_decode(self.model, row, end).lstrip() for row in input_ids[:, self.start:]]
        done = [len(stops(text, self.stop)) > passed for text, passed in zip(texts, self.passed, strict=True)]
        return torch.tensor(done, device=input_ids.device)


class _EndsNonsense(LogitsProcessor):
    """Ends a row whose logits are not finite, of which there is no most probable token and none to draw."""

    def __init__(self, end: int) -> None:
        self.end = end

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        nonsense = ~scores.logsumexp(-1, keepdim=True).isfinite()
        ended = torch.full_like(scores, -torch.inf)
        ended[:, self.end] = 0
        return torch.where(nonsense, ended, scores)
