"""T-Patcher: one neuron per wrong token in the last FFN (Huang et al. 2023; METHODS section 4)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from editors.core.artefacts import Artefact
from editors.core.editor import Editor
from editors.core.errors import InputError
from editors.core.examples import Example
from editors.core.methods.checkpoints import Checkpoint
from editors.core.methods.neurons import NeuronConfig, NeuronTraining, Positions
from editors.core.models.architectures import Shape
from editors.core.models.batches import BlockRef
from editors.core.models.capture import capture_inputs
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Patch
from editors.core.requests import EditRequest

VALIDATION_SHARE = 10  # one query in ten
POSITIONS = 5  # tokens that take as long as an edit's target positions, forth and back
QUERY = 20  # tokens of a question of the memory


class TPatcherConfig(NeuronConfig):
    """`memory_queries` training questions make the memory; `edits_at_once` share a training loop."""

    memory_queries: PositiveInt = 40_000
    edits_at_once: PositiveInt = 25
    batch_tokens: PositiveInt = 8192


class TPatcher(Editor[TPatcherConfig]):
    """Appends up to `max_neurons` trained neurons to the last decoder FFN; right answers need none.

    In a gated FFN the new neurons are plain ReLU ones. Trained beforehand is only the memory: the unedited model's FFN
    inputs on other queries, at which the neurons should stay silent.
    """

    name = "t-patcher"
    version = 1
    Config = TPatcherConfig
    trained = True

    @classmethod
    def cost(cls, config: TPatcherConfig, shape: Shape) -> float:
        return shape.flops(POSITIONS * config.steps / shape.depth)  # a step takes the last norm and the head

    @classmethod
    def training_cost(cls, config: TPatcherConfig, shape: Shape) -> float:
        return shape.flops(QUERY * config.memory_queries)

    @classmethod
    def training_settings(cls, config: TPatcherConfig) -> dict[str, Any]:
        return {"memory_queries": config.memory_queries}

    @classmethod
    def train(cls, model: LanguageModel, config: TPatcherConfig, examples: Sequence[Example], *, seed: int = 0,
              checkpoint: Checkpoint | None = None, on_step: Callable[[int, float], None] | None = None) -> Artefact:
        """Collects the memory from the examples' questions with their true answers; a tenth of them is held out.

        A decoder-only model's first position is left out: it sees nothing but one token, whatever the question.
        """
        queries = sorted({(example.request.prompt, example.request.target_true or example.request.target)
                          for example in examples}
                         | {(question.prompt, question.target) for example in examples
                            for question in example.unchanged})
        random.Random(f"memory {seed}").shuffle(queries)
        queries = queries[: config.memory_queries]
        if len(queries) < 2:
            raise InputError(f"t-patcher's memory needs at least two training questions, got {len(queries)}")
        held_out = max(len(queries) // VALIDATION_SHARE, 1)
        tensors = {"keys": _memory(model, queries[held_out:], config.batch_tokens).half(),
                   "validation_keys": _memory(model, queries[:held_out], config.batch_tokens).half()}
        return Artefact(cls.name, cls.version, cls.training_settings(config), model.digest, tensors,
                        {"queries": len(queries) - held_out, "held_out": held_out})

    @cached_property
    def _memories(self) -> tuple[Tensor, Tensor]:
        tensors = self.artefact.tensors
        return (tensors["keys"].float().to(self.model.device), tensors["validation_keys"].float().to(self.model.device))

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        size = self.config.edits_at_once
        chunks = [requests[start: start + size] for start in range(0, len(requests), size)]
        return [patch for chunk in chunks for patch in self._train(chunk)]

    def _train(self, requests: Sequence[EditRequest]) -> list[Patch]:
        training = NeuronTraining(self.model, self.config, self.read(requests), requests, self.seed)
        training.train(*self._memories)
        return [training.patch(edit) for edit in range(len(requests))]

    @torch.no_grad()
    def read(self, requests: Sequence[EditRequest]) -> Positions:
        """All target positions of the requests, the end token's included where targets have one."""
        encoded = [self.model.encode(request.prompt, request.target, end=True) for request in requests]
        batch = self.model.collate(encoded)
        path = self.model.ffn_path(self.model.depth - 1)
        with capture_inputs(self.model, [path]) as inputs:
            last = self.model.run_to(batch, BlockRef("decoder", self.model.depth))
        at = batch.row, batch.position
        return Positions(inputs[path][at].float(), last[at].float(), batch.target, batch.row)


@torch.no_grad()
def _memory(model: LanguageModel, queries: Sequence[tuple[str, str]], batch_tokens: int) -> Tensor:
    """The last FFN's inputs [keys, width] at all positions the decoder reads, but a decoder-only model's first."""
    path = model.ffn_path(model.depth - 1)
    rows = sorted((model.encode(prompt, target) for prompt, target in queries), key=len)
    found = []
    while rows:
        size = max(batch_tokens // len(rows[-1]), 1)
        batch, rows = model.collate(rows[-size:]), rows[:-size]
        with capture_inputs(model, [path]) as inputs:
            model.run_to(batch, BlockRef("decoder", model.depth))
        read = batch.attention_mask.bool()
        if not model.has_encoder:
            read = read & (batch.position_ids > 0)
        found.append(inputs[path][read].float())
    return torch.cat(found)
