"""A frozen language model as editors and evaluators see it: where its modules are, how text becomes tokens, and the
logits of target tokens. One class serves every architecture in `LAYOUTS`."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from editors.core.errors import CaseError, InputError
from editors.core.requests import EditRequest

Padding = Literal["right", "left"]
KeysValues = list[tuple[Tensor, Tensor]]  # per block, attention keys and values [rows, heads, length, head width]


@dataclass(frozen=True)
class Layout:
    """Where an architecture keeps what editors touch; FFN paths are relative to a block."""

    backbone: str
    blocks: str
    ffn: str
    down: str


LAYOUTS = {"gptj": Layout(backbone="transformer", blocks="h", ffn="mlp", down="mlp.fc_out")}


@dataclass(frozen=True)
class Encoded:
    """A prompt and the target that should follow it, as token ids."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]

    def __len__(self) -> int:
        """Tokens the model has to read; the last target token is only predicted."""
        return len(self.prompt) + max(len(self.target) - 1, 0)


@dataclass(frozen=True)
class Batch:
    """Padded model inputs, each [rows, length], and the flat list of places where target tokens are predicted.

    `row[k]`, `position[k]` and `target[k]` say that the logits of row `row[k]` at `position[k]` predict the token
    `target[k]`. In a `suffix` the attention mask also covers the cached tokens before it.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    row: Tensor
    position: Tensor
    target: Tensor

    @property
    def first_position(self) -> Tensor:
        """Where each row's first target token is predicted [rows]: the prompt's last position."""
        return self.row.new_zeros(len(self.input_ids)).scatter_reduce(0, self.row, self.position, "amin",
                                                                      include_self=False)

    def select(self, rows: Tensor) -> Batch:
        """The batch of these rows alone, padded as before."""
        place = torch.full((len(self.input_ids),), -1, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        kept = place[self.row] >= 0
        return Batch(self.input_ids[rows], self.attention_mask[rows], self.position_ids[rows],
                     place[self.row][kept], self.position[kept], self.target[kept])

    def suffix(self, start: Tensor) -> tuple[Batch, Tensor]:
        """Each row from position `start[row]` on (right padding only), behind `max(start)` cached positions.

        Also returns the positions taken [rows, suffix length], to gather states of the whole batch with.
        """
        lengths = self.attention_mask.sum(1)
        steps = torch.arange(int((lengths - start).max()), device=start.device)
        taken = (start[:, None] + steps).clamp(max=self.input_ids.shape[1] - 1)
        cached = torch.arange(int(start.max()), device=start.device)[None] < start[:, None]
        real = steps[None] < (lengths - start)[:, None]
        return Batch(self.input_ids.gather(1, taken), torch.cat([cached, real], 1).to(self.attention_mask.dtype),
                     self.position_ids.gather(1, taken), self.row, self.position - start[self.row],
                     self.target), taken


class LanguageModel:
    """A frozen Hugging Face model, its tokenizer and its layout. `digest` identifies the weights' content."""

    def __init__(self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str,
                 digest: str = "") -> None:
        kind = module.config.model_type
        if kind not in LAYOUTS:
            raise InputError(f"model '{name}' is of type '{kind}'; supported types: {', '.join(LAYOUTS)}")
        self.module = module.eval().requires_grad_(False)
        self.tokenizer, self.name, self.digest = tokenizer, name, digest
        self.layout = LAYOUTS[kind]

    @property
    def device(self) -> torch.device:
        device: torch.device = self.module.device
        return device

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return int(self.module.config.num_hidden_layers)

    @property
    def width(self) -> int:
        return int(self.module.config.hidden_size)

    @property
    def max_length(self) -> int | None:
        """Most tokens the model can read at once; None where there is no limit."""
        return getattr(self.module.config, "max_position_embeddings", None)

    def submodule(self, path: str) -> nn.Module:
        found: nn.Module = self.module.get_submodule(path)
        return found

    def block_path(self, layer: int) -> str:
        if not 0 <= layer < self.depth:
            raise InputError(f"layer {layer} does not exist: '{self.name}' has layers 0 to {self.depth - 1}")
        return f"{self.layout.backbone}.{self.layout.blocks}.{layer}"

    def ffn_path(self, layer: int) -> str:
        return f"{self.block_path(layer)}.{self.layout.ffn}"

    def down_path(self, layer: int) -> str:
        return f"{self.block_path(layer)}.{self.layout.down}"

    # --- text to tokens

    def encode(self, prompt: str, target: str = "") -> Encoded:
        """Tokenises prompt and `" " + target` separately, so that no token straddles the boundary.

        Raises `CaseError` for an empty prompt and for a text longer than the model's positions.
        """
        prompt_ids = tuple(self.tokenizer.encode(prompt.rstrip(), add_special_tokens=False))
        target = target.strip()
        target_ids = tuple(self.tokenizer.encode(f" {target}", add_special_tokens=False)) if target else ()
        if not prompt_ids:
            raise CaseError("the prompt is empty")
        encoded = Encoded(prompt_ids, target_ids)
        if self.max_length is not None and len(encoded) > self.max_length:
            raise CaseError(f"{len(encoded)} tokens, but '{self.name}' reads at most {self.max_length}: "
                            f"'{prompt[:60]}...'")
        return encoded

    def subject_index(self, request: EditRequest) -> int:
        """Position of the subject's last token among the prompt's tokens."""
        spans = self.tokenizer(request.prompt.rstrip(), add_special_tokens=False, return_offsets_mapping=True)
        inside = [i for i, (start, _) in enumerate(spans["offset_mapping"]) if start < request.subject_end]
        return inside[-1]

    def collate(self, rows: Sequence[Encoded], padding: Padding = "right") -> Batch:
        """Pads rows to one length. Positions count from each row's first real token, whatever the side."""
        length = max(len(row) for row in rows)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        offset = [length - len(row) if padding == "left" else 0 for row in rows]
        places: list[tuple[int, int, int]] = []
        for i, (row, start) in enumerate(zip(rows, offset, strict=True)):
            ids[i, start: start + len(row)] = torch.tensor((row.prompt + row.target)[: len(row)])
            mask[i, start: start + len(row)] = 1
            places += [(i, start + len(row.prompt) - 1 + k, token) for k, token in enumerate(row.target)]
        flat = torch.tensor(places, dtype=torch.long).reshape(-1, 3).to(self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return Batch(ids.to(self.device), mask.to(self.device), positions.to(self.device), *flat.unbind(1))

    # --- forward passes

    def states(self, batch: Batch) -> Tensor:
        """Final hidden states [rows, length, width], after the last norm."""
        return self._run(self._backbone, batch, input_ids=batch.input_ids)

    def states_and_cache(self, batch: Batch) -> tuple[Tensor, KeysValues]:
        """`states`, and every block's attention keys and values."""
        cache = DynamicCache()
        states = self._run(self._backbone, batch, cache, input_ids=batch.input_ids)
        layers: list[Any] = cache.layers
        return states, [(layer.keys, layer.values) for layer in layers]

    def head(self, states: Tensor) -> Tensor:
        """Logits [..., vocabulary] in fp32."""
        logits: Tensor = self.module.get_output_embeddings()(states)
        return logits.float()

    def target_logits(self, batch: Batch) -> Tensor:
        """Logits [targets, vocabulary] in fp32 that predict `batch.target`; no other row of the head is computed."""
        return self.head(self.states(batch)[batch.row, batch.position])

    def run_below(self, batch: Batch, stop: int) -> None:
        """Runs only the blocks below `stop`, for what hooks see on the way."""
        self._run(self._blocks(0, stop), batch, input_ids=batch.input_ids)

    def run_blocks(self, hidden: Tensor, batch: Batch, start: int, past: KeysValues | None = None) -> Tensor:
        """Final hidden states when `hidden` [rows, length, width] enters block `start`: blocks below are not run.

        `past` are the cached keys and values of the tokens before a `Batch.suffix`.
        """
        cache = DynamicCache() if past is not None else None
        for layer, (keys, values) in enumerate(past or ()):
            assert cache is not None
            cache.update(keys, values, layer)
        return self._run(self._blocks(start, self.depth), batch, cache, inputs_embeds=hidden)

    @property
    def _backbone(self) -> nn.Module:
        return self.submodule(self.layout.backbone)

    def _blocks(self, start: int, stop: int) -> nn.Module:
        """The backbone with only some of its blocks. It shares every submodule, so hooks on them work."""
        part = copy.copy(self._backbone)
        part._modules = dict(self._backbone._modules)  # not the table that names them, though
        blocks = self._backbone.get_submodule(self.layout.blocks)
        assert isinstance(blocks, nn.ModuleList)
        part._modules[self.layout.blocks] = blocks[start:stop]
        return part

    @staticmethod
    def _run(backbone: nn.Module, batch: Batch, cache: DynamicCache | None = None, **start: Tensor) -> Tensor:
        hidden: Tensor = backbone(attention_mask=batch.attention_mask, position_ids=batch.position_ids,
                                  past_key_values=cache, use_cache=cache is not None, **start).last_hidden_state
        return hidden


def load_config(path: str | Path) -> PretrainedConfig:
    """A model's configuration alone. Raises `InputError` where it is not found or its type is not supported."""
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load model '{path}': {error}") from error
    if config.model_type not in LAYOUTS:
        raise InputError(f"model '{path}' is of type '{config.model_type}'; supported types: {', '.join(LAYOUTS)}")
    return config


def load_model(path: str | Path, *, name: str | None = None, device: str = "cpu",
               dtype: str = "float32") -> LanguageModel:
    """Loads a model from a local folder or by hub name. Raises `InputError` where it is not found or unsupported."""
    load_config(path)  # before any weight is read
    try:
        module: Any = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), use_safetensors=True)
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load model '{path}': {error}") from error
    return LanguageModel(module.to(device), tokenizer, name or str(path), model_digest(path))


def model_digest(path: str | Path) -> str:
    """A digest of a model folder's content, or of hub name and commit where there is no folder."""
    digest = hashlib.sha256()
    folder = Path(path)
    if not folder.is_dir():
        commit = getattr(AutoConfig.from_pretrained(path), "_commit_hash", None)
        return hashlib.sha256(f"{path}@{commit}".encode()).hexdigest()[:16]
    for file in sorted(folder.iterdir()):
        if file.is_file():
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()[:16]
