"""A frozen language model as editors and evaluators see it: where its modules are, and the logits of target
tokens. `LanguageModel` is decoder-only; what differs behind an encoder is in `encoder_decoder`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from editors.core.errors import InputError
from editors.core.memory import Bytes, Room
from editors.core.models.activations import fuse
from editors.core.models.architectures import Shape, architecture
from editors.core.models.batches import Batch, BlockRef, Encoded, Padding
from editors.core.models.kept import KeptStates
from editors.core.models.layouts import Layout, Stack, longest
from editors.core.models.linear import is_turned
from editors.core.models.parts import stretch
from editors.core.models.reading import Reader
from editors.core.models.weights import Weights
from editors.core.models.work import DONE
from editors.core.patches.patch import Patch

if TYPE_CHECKING:  # else imported where it is used: the library's models take as long to import as torch itself
    from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

KeysValues = list[tuple[Tensor, Tensor]]  # per block, attention keys and values [rows, heads, length, head width]


class Router(Protocol):
    """Answers some rows of a batch by other models (`patches.route` has the one there is)."""

    def target_logits(self, batch: Batch) -> Tensor:
        """As `LanguageModel.target_logits`."""

    def answered_elsewhere(self, rows: Sequence[Encoded]) -> list[tuple[int, LanguageModel, Encoded]]:
        """Of a batch of prompts, those that other models answer: which row it is, the model, and what that reads."""


class LanguageModel(Reader):
    """A frozen Hugging Face model, its tokenizer and its layout. `digest` identifies the weights' content, and
    `weights` is the way to read them.

    `sides` are the models that patches may route questions to, by the digest of their artefact; `router` is set by
    `overlay` while such a patch is on, and `patches` are those it has put on every row, the innermost last. Whoever
    asks the same questions of many edits of the model, whose weights stay as they are, gives it a place for `kept`
    states, and who runs many tasks on it the `room` that past ones have left to such as this.
    """

    has_encoder = False

    def __init__(self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str,
                 digest: str = "", weights: Weights | None = None) -> None:
        self.architecture = architecture(module.config, name)
        self.module = module.eval().requires_grad_(False)
        self.architecture.prepare(self.module)
        fuse(self.module, self.activation)
        self.tokenizer, self.name, self.digest = tokenizer, name, digest
        self.weights = weights or Weights()
        self.sides: dict[str, Any] = {}
        self.router: Router | None = None
        self.patches: tuple[Patch, ...] = ()
        self.kept: KeptStates | None = None
        self.room = Room()
        #: Parameters of a block, by stack.
        self._block_size: dict[Stack, int] = {}

    @property
    def device(self) -> torch.device:
        device: torch.device = self.module.device
        return device

    @property
    def depth(self) -> int:
        """Number of blocks of the decoder; an encoder may have another."""
        return self.depth_of("decoder")

    def depth_of(self, stack: Stack) -> int:
        """Number of blocks of a stack, 0 where the model has no such stack."""
        return self.architecture.depth(self.module.config, stack)

    @property
    def width(self) -> int:
        """Numbers in a hidden state."""
        return int(self.module.config.hidden_size)

    @property
    def activation(self) -> str:
        """The FFN's activation function, by its name in `transformers.activations.ACT2FN`."""
        return str(getattr(self.module.config, self.architecture.activation))

    @property
    def gated(self) -> bool:
        """Whether the FFN multiplies its activations with a second, linear projection."""
        return self.architecture.gated(self.module.config)

    @property
    def parallel(self) -> bool:
        """Whether an FFN reads what its block reads, and not what its attention has made of it."""
        return self.architecture.parallel(self.module.config)

    @property
    def own_head(self) -> bool:
        """Whether the head's weight is its own, not the token embeddings'."""
        return self.architecture.own_head(self.module.config)

    @property
    def max_length(self) -> int | None:
        """Most tokens the model can read at once; None where there is no limit."""
        return longest(self.module.config)

    @property
    def input_table(self) -> Tensor:
        """The token embeddings [vocabulary, width]."""
        table: Tensor = self.module.get_input_embeddings().weight
        return table

    @property
    def output_table(self) -> Tensor:
        """The head's weight [vocabulary, width]; the same object as `input_table` where the two are tied."""
        table: Tensor = self.module.get_output_embeddings().weight
        return table

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the head knows."""
        return self.weights.shape(self.output_table)[0]

    # --- memory

    @cached_property
    def bytes(self) -> Bytes:
        """What it takes."""
        return Bytes(Shape.of(self.module.config), self.module.dtype.itemsize)

    def at_once(self, most: int, each: float) -> int:
        """How many of `most` things that take `each` bytes there is room for on its device: at least one."""
        return self.room.at_once(most, each, self.weights.free(self.device))

    # --- where modules are

    def submodule(self, path: str) -> nn.Module:
        """The module at a dotted path, as `block_path` and its like give it."""
        found: nn.Module = self.module.get_submodule(path)
        return found

    def layout(self, stack: Stack) -> Layout:
        """Where a stack keeps its parts. Raises `InputError` where the model has no such stack."""
        if stack not in self.architecture.layouts:
            raise InputError(f"'{self.name}' has no {stack}; it is decoder-only")
        return self.architecture.layouts[stack]

    def block_path(self, layer: int, stack: Stack = "decoder") -> str:
        """The path of a block, counted from 0. Raises `InputError` where there is none."""
        layout, depth = self.layout(stack), self.depth_of(stack)
        if not 0 <= layer < depth:
            raise InputError(f"layer {layer} does not exist: the {stack} of '{self.name}' has layers 0 to {depth - 1}")
        return f"{layout.backbone}.{layout.blocks}.{layer}"

    def ffn_path(self, layer: int, stack: Stack = "decoder") -> str:
        """The path of a block's FFN."""
        return f"{self.block_path(layer, stack)}.{self.layout(stack).ffn}"

    def up_path(self, layer: int, stack: Stack = "decoder") -> str:
        """The path of an FFN's first projection [inner, width], in a gated FFN the one that passes the activation, or
        both as one [2 inner, width]."""
        path = self.block_path(layer, stack)
        block = self.submodule(path)
        return next(f"{path}.{name}" for name in self.layout(stack).up if _has(block, name))

    def down_path(self, layer: int, stack: Stack = "decoder") -> str:
        """The path of an FFN's last projection [width, inner], which reads its keys."""
        return f"{self.block_path(layer, stack)}.{self.layout(stack).down}"

    def matrix(self, path: str) -> tuple[int, int]:
        """Outputs and inputs of the linear map at a path."""
        module = self.submodule(path)
        rows, columns = self.weights.shape(module.get_parameter("weight"))
        return (columns, rows) if is_turned(module) else (rows, columns)

    def block_of(self, path: str) -> BlockRef | None:
        """The block that the module at a dotted path is part of; None for those outside of all blocks."""
        for stack, layout in self.architecture.layouts.items():
            number, dot, _ = path.removeprefix(f"{layout.backbone}.{layout.blocks}.").partition(".")
            if dot and number.isdecimal():
                return BlockRef(stack, int(number))
        return None

    # --- tokens to batches

    @property
    def embeddings(self) -> int:
        return self.weights.shape(self.input_table)[0]

    def length(self, row: Encoded) -> int:
        """Tokens of a row that are read at once, in a decoder or, where there is one, in the encoder."""
        return len(row)

    def collate(self, rows: Sequence[Encoded], padding: Padding = "right") -> Batch:
        """Pads rows to one length. Positions count from each row's first real token, whatever the side."""
        ids, mask, offsets = self._pad([(row.prompt + row.target)[: len(row)] for row in rows], padding)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        first = [start + len(row.prompt) - 1 for row, start in zip(rows, offsets, strict=True)]
        return Batch(ids, mask, positions, *self._places(rows, first))

    def _pad(self, rows: Sequence[Sequence[int]], padding: Padding) -> tuple[Tensor, Tensor, list[int]]:
        """Ids and mask [rows, length], and where each row starts."""
        length = max(map(len, rows))
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        offsets = [length - len(row) if padding == "left" else 0 for row in rows]
        for i, (row, start) in enumerate(zip(rows, offsets, strict=True)):
            ids[i, start: start + len(row)] = torch.tensor(row, dtype=torch.long)
            mask[i, start: start + len(row)] = 1
        return ids.to(self.device), mask.to(self.device), offsets

    def _places(self, rows: Sequence[Encoded], first: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Row, position and target of every target token, when row i's first is predicted at `first[i]`."""
        places = [(i, start + k, token) for i, (row, start) in enumerate(zip(rows, first, strict=True))
                  for k, token in enumerate(row.target)]
        row, position, target = torch.tensor(places, dtype=torch.long).reshape(-1, 3).to(self.device).unbind(1)
        return row, position, target

    # --- forward passes

    def read(self, batch: Batch) -> Batch:
        """The batch with what an encoder makes of its prompts, so that it is not run again; nothing to do without."""
        return batch

    def states(self, batch: Batch) -> Tensor:
        """Final hidden states [rows, length, width], after the last norm."""
        return self._run(self._backbone, batch, input_ids=batch.input_ids)

    def states_and_cache(self, batch: Batch, past: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
        """`states`, and every block's attention keys and values: those of the `past`, which are of the tokens before a
        `Batch.suffix`, and then the batch's."""
        return self.run_with_cache(None, batch, 0, self.depth, past or [])

    def run_with_cache(self, hidden: Tensor | None, batch: Batch, start: int, stop: int,
                       past: KeysValues) -> tuple[Tensor, KeysValues]:
        """What leaves block `stop - 1`, behind the last norm if it is the last, when `hidden` [rows, length, width]
        enters block `start`, or the batch's tokens the first one; and the `past` with the batch's keys and values in
        the blocks between."""
        cache = _cached(past)
        part = self._blocks(start, stop, norm=stop == self.depth, entered=hidden is not None)
        states = self._run(part, batch, cache, **({"input_ids": batch.input_ids} if hidden is None else
                                                  {"inputs_embeds": hidden}))
        layers: list[Any] = cache.layers
        return states, [(layer.keys, layer.values) for layer in layers]

    def after_ffn(self, layer: int, written: Tensor) -> Tensor:
        """What a decoder's block adds of what its FFN writes: the same, unless the family normalises it first."""
        norm = self.layout("decoder").after
        added: Tensor = self.submodule(f"{self.block_path(layer)}.{norm}")(written) if norm else written
        return added

    def with_more(self, layer: int, hidden: Tensor, written: Tensor | None, more: Tensor) -> Tensor:
        """What leaves a decoder's block whose FFN writes `more` on top of what it has `written` (None will do where the
        family does not normalise it) when `hidden` left."""
        if self.layout("decoder").after is None:
            return hidden + more
        assert written is not None
        return hidden - self.after_ffn(layer, written) + self.after_ffn(layer, written + more)

    def finish(self, hidden: Tensor) -> Tensor:
        """Final states from what leaves the last block: the last norm alone."""
        layout = self.layout("decoder")
        states: Tensor = self.submodule(f"{layout.backbone}.{layout.norm}")(hidden)
        return states

    def head(self, states: Tensor) -> Tensor:
        """Logits [..., vocabulary] in fp32. Of a model in half precision they were rounded to it first, so that close
        ones may be equal: another projection in fp32 would need the whole head, which a gang has in parts."""
        logits: Tensor = self.module.get_output_embeddings()(states)
        DONE.add(states.numel() // states.shape[-1], self.vocabulary * self.width, backward=logits.requires_grad)
        if cap := self.architecture.softcap and getattr(self.module.config, self.architecture.softcap):
            logits = torch.tanh(logits / cap) * cap
        return logits.float()

    def target_logits(self, batch: Batch) -> Tensor:
        """Logits [targets, vocabulary] in fp32 that predict `batch.target`; of another model where a patch says so."""
        return self.own_target_logits(batch) if self.router is None else self.router.target_logits(batch)

    def own_target_logits(self, batch: Batch) -> Tensor:
        """`target_logits` of this model; no other row of the head is computed."""
        return self.head(self.states(batch)[batch.row, batch.position])

    def target_nll(self, states: Tensor, batch: Batch) -> Tensor:
        """Negative log-likelihood [targets] in fp32 of the batch's target tokens from final states [rows, length,
        width]; no other row of the head is computed."""
        logits = self.head(states[batch.row, batch.position])
        return nn.functional.cross_entropy(logits, batch.target, reduction="none")

    def run_to(self, batch: Batch, at: BlockRef) -> Tensor:
        """The hidden states [rows, length, width] that enter block `at`; neither it nor those above are run."""
        return self._run(self._blocks(0, at.layer, norm=False), batch, input_ids=batch.input_ids)

    def run_between(self, hidden: Tensor, batch: Batch, start: BlockRef, stop: BlockRef) -> Tensor:
        """The hidden states that enter block `stop` when `hidden` [rows, length, width] enters `start` of its stack."""
        if start == stop:
            return hidden
        part = self._blocks(start.layer, stop.layer, norm=False, entered=True)
        return self._run(part, batch, inputs_embeds=hidden)

    def run_from(self, hidden: Tensor, batch: Batch, at: BlockRef, past: KeysValues | None = None) -> Tensor:
        """Final hidden states when `hidden` [rows, length, width] enters block `at`: blocks below are not run.
        `past` are the cached keys and values of the tokens before a `Batch.suffix`."""
        if past is not None:
            return self.run_with_cache(hidden, batch, at.layer, self.depth, past)[0]
        return self._run(self._blocks(at.layer, self.depth, entered=True), batch, inputs_embeds=hidden)

    @property
    def _backbone(self) -> nn.Module:
        return self.submodule(self.layout("decoder").backbone)

    def _blocks(self, start: int, stop: int, stack: Stack = "decoder", *, norm: bool = True,
                entered: bool = False) -> nn.Module:
        """A stack with only some of its blocks, as `stretch` makes it."""
        layout = self.layout(stack)
        return stretch(self.submodule(layout.backbone), layout, start, stop, norm=norm, entered=entered)

    def _run(self, backbone: nn.Module, batch: Batch, cache: DynamicCache | None = None, **start: Tensor) -> Tensor:
        hidden: Tensor = backbone(attention_mask=batch.attention_mask, position_ids=batch.position_ids,
                                  cache=cache, use_cache=cache is not None, **start).last_hidden_state
        self._count(backbone, hidden, "input_ids" in start)
        return hidden

    def _count(self, backbone: nn.Module, hidden: Tensor, new: bool, stack: Stack = "decoder") -> None:
        """Counts what the blocks of a stack, or some of them, have made of so many positions."""
        blocks = backbone._modules[self.layout(stack).blocks]
        assert isinstance(blocks, nn.ModuleList)
        if stack not in self._block_size and len(blocks):
            self._block_size[stack] = sum(math.prod(self.weights.shape(weight)) for weight in blocks[-1].parameters())
        DONE.add(hidden.shape[0] * hidden.shape[1], len(blocks) * self._block_size.get(stack, 0),
                 backward=hidden.requires_grad, new=new)


def _cached(past: Iterable[tuple[Tensor, Tensor]]) -> DynamicCache:
    """Keys and values of tokens that were read, for the library."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, (keys, values) in enumerate(past):
        cache.update(keys, values, layer)
    return cache


def _has(module: nn.Module, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True
