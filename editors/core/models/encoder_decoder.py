"""A model whose encoder reads the prompt (T5), as a `LanguageModel`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from editors.core.errors import InputError
from editors.core.models.batches import Batch, BlockRef, Encoded, EncoderInput, Padding
from editors.core.models.layouts import Stack
from editors.core.models.model import KeysValues, LanguageModel
from editors.core.models.parts import shallow
from editors.core.models.work import DONE

if TYPE_CHECKING:
    from transformers import DynamicCache


class EncoderDecoder(LanguageModel):
    """A T5: the encoder reads the prompt, the decoder the target shifted right by one (its start token first)."""

    has_encoder = True

    def _close(self, prompt: tuple[int, ...], target: tuple[int, ...], end: bool) -> Encoded:
        closing = (int(self.module.config.eos_token_id),)
        return Encoded(prompt + closing, target + closing if end and target else target)

    def text_of(self, prompt: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(prompt[:-1])))

    def collate(self, rows: Sequence[Encoded], padding: Padding = "right") -> Batch:
        """`padding` is the encoder's; the decoder's rows all start at position 0."""
        ids, mask, _ = self._pad([row.prompt for row in rows], padding)
        start = int(self.module.config.decoder_start_token_id)
        inputs, seen, _ = self._pad([(start, *row.target[:-1]) for row in rows], "right")
        positions = (seen.cumsum(1) - 1).clamp(min=0)
        return Batch(inputs, seen, positions, *self._places(rows, [0] * len(rows)), EncoderInput(ids, mask))

    def read(self, batch: Batch) -> Batch:
        source = self._source(batch)
        if source.states is not None:
            return batch
        states = self._encode(self._part("encoder", 0, self.depth_of("encoder")), source, input_ids=source.input_ids)
        return replace(batch, source=replace(source, states=states))

    def run_to(self, batch: Batch, at: BlockRef) -> Tensor:
        if at.stack == "encoder":
            source = self._source(batch)
            return self._encode(self._part("encoder", 0, at.layer, norm=False), source, input_ids=source.input_ids)
        return self._run(self._part("decoder", 0, at.layer, norm=False), self.read(batch), input_ids=batch.input_ids)

    def run_between(self, hidden: Tensor, batch: Batch, start: BlockRef, stop: BlockRef) -> Tensor:
        if start == stop:
            return hidden
        part = self._part(start.stack, start.layer, stop.layer, norm=False)
        if start.stack == "encoder":
            return self._encode(part, self._source(batch), inputs_embeds=hidden)
        return self._run(part, self.read(batch), inputs_embeds=hidden)

    def run_from(self, hidden: Tensor, batch: Batch, at: BlockRef, past: KeysValues | None = None) -> Tensor:
        if past is not None:
            raise ValueError("a decoder behind an encoder has no cached prompt")
        if at.stack == "encoder":
            source = self._source(batch)
            part = self._part("encoder", at.layer, self.depth_of("encoder"))
            states = self._encode(part, source, inputs_embeds=hidden)
            return self.states(replace(batch, source=replace(source, states=states)))
        return self._run(self._part("decoder", at.layer, self.depth), self.read(batch), inputs_embeds=hidden)

    def length(self, row: Encoded) -> int:
        return len(row.prompt)

    def states(self, batch: Batch) -> Tensor:
        return self._run(self._backbone, self.read(batch), input_ids=batch.input_ids)

    def states_and_cache(self, batch: Batch, past: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        raise InputError(f"'{self.name}' is an encoder-decoder; cached suffixes are for decoder-only models")

    def head(self, states: Tensor) -> Tensor:
        return super().head(states if self.own_head else states * self.width**-0.5)

    @staticmethod
    def _source(batch: Batch) -> EncoderInput:
        assert batch.source is not None
        return batch.source

    def _part(self, stack: Stack, start: int, stop: int, *, norm: bool = True) -> nn.Module:
        """Blocks `start` to `stop`, the first of which makes the relative position bias that all of them use."""
        part = self._blocks(start, stop, stack, norm=norm)
        blocks = part._modules[self.layout(stack).blocks]
        assert isinstance(blocks, nn.ModuleList)
        if 0 < start < stop:
            bias = self.submodule(f"{self.block_path(0, stack)}.layer.0.SelfAttention.relative_attention_bias")
            blocks[0] = _with_position_bias(blocks[0], bias)
        return part

    def _encode(self, encoder: nn.Module, source: EncoderInput, **start: Tensor) -> Tensor:
        states: Tensor = encoder(attention_mask=source.attention_mask, **start).last_hidden_state
        self._count(encoder, states, "input_ids" in start, "encoder")
        return states

    def _run(self, backbone: nn.Module, batch: Batch, cache: DynamicCache | None = None, **start: Tensor) -> Tensor:
        source = self._source(batch)
        hidden: Tensor = backbone(
            attention_mask=batch.attention_mask, encoder_hidden_states=source.states,
            encoder_attention_mask=source.attention_mask, use_cache=False, **start).last_hidden_state
        self._count(backbone, hidden, "input_ids" in start)
        assert source.states is not None
        self._count_source(source.states, backbone, hidden.requires_grad)
        return hidden

    def _count_source(self, states: Tensor, decoder: nn.Module, backward: bool) -> None:
        """Every block makes keys and values of the encoder's states, whose length is another."""
        blocks = decoder._modules[self.layout("decoder").blocks]
        assert isinstance(blocks, nn.ModuleList)
        config = self.module.config
        DONE.add(states.shape[0] * states.shape[1], len(blocks) * 2 * self.width * config.num_heads * config.d_kv,
                 backward=backward)


def _with_position_bias(block: nn.Module, bias: nn.Module) -> nn.Module:
    """A T5 block that computes the relative position bias, as the first block of a stack does for all."""
    block = twin = shallow(block)
    for name in ("layer", "0", "SelfAttention"):
        twin._modules[name] = inner = shallow(twin.get_submodule(name))
        twin = inner
    twin._modules["relative_attention_bias"] = bias
    vars(twin)["has_relative_attention_bias"] = True
    return block
