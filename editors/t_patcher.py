"""T-Patcher: one neuron per wrong token in the last FFN (Huang et al. 2023, section 3).

Nothing after the last FFN mixes positions, so its input q and the last block's output r at every target position are
all that training needs, beside the last norm and the head at those positions. `core/methods/neurons.py` trains.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from editors.core.artefacts import Artefact
from editors.core.editor import Editor
from editors.core.errors import InputError
from editors.core.examples import Example
from editors.core.files import Slot
from editors.core.memory import ADAM, ANSWER, SINGLE, Bytes, Needs
from editors.core.methods.checkpoints import Checkpoint
from editors.core.methods.neurons import CHUNK, NeuronConfig, NeuronTraining, Positions
from editors.core.models.architectures import Shape
from editors.core.models.batches import BlockRef, alike, by_length
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Neurons, Patch
from editors.core.requests import EditRequest

VALIDATION_SHARE = 10  # one question of the memory in ten
ACTIVATIONS = 2  # numbers of each neuron at each key of a part of the memory that a step has at once
POSITION = 8  # hidden states of each target position, likewise
POSITIONS = 5  # tokens that take as long as an edit's target positions, forth and back
QUERY = 20  # tokens of a question of the memory


class TPatcherConfig(NeuronConfig):
    """How neurons are trained, and against what."""

    memory_queries: PositiveInt = 40_000
    """Training questions of which the memory is made, the held-out tenth among them. Huang et al. 2023, code."""

    memory_unchanged: bool = False
    """Whether the memory also has questions that training facts should leave alone. Ours: where those are of the kind
    that locality is measured by, they favour it."""

    edits_at_once: PositiveInt = 25
    """Most edits that share a training loop, which are fewer where memory is short. Ours."""

    batch_tokens: PositiveInt = 8192
    """Most tokens of one forward pass that collects the keys, which has fewer where memory is short. Ours."""


class TPatcher(Editor[TPatcherConfig]):
    """Appends up to `max_neurons` trained neurons to the last decoder FFN; right answers need none.

    In a gated FFN the new neurons are plain ReLU ones. Trained beforehand is only the memory: the unedited model's FFN
    inputs on other queries, at which the neurons should stay silent.
    """

    name = "t-patcher"
    version = 5
    training_version = 4
    in_weights = False
    Config = TPatcherConfig
    trained = True

    @classmethod
    def cost(cls, config: TPatcherConfig, shape: Shape) -> float:
        return shape.flops(POSITIONS * config.steps / shape.depth)  # a step takes the last norm and the head

    @classmethod
    def training_cost(cls, config: TPatcherConfig, shape: Shape) -> float:
        return shape.flops(QUERY * config.memory_queries)

    @classmethod
    def needs(cls, config: TPatcherConfig, of: Bytes, facts: int = 1) -> Needs:
        keys = QUERY * config.memory_queries
        part = min(keys, CHUNK) if of.size < SINGLE else 0  # which is there in fp32, too
        held = of.shape.width * (of.size * keys + SINGLE * part)
        return replace(cls._needs(config, of, keys, ANSWER), held=held)

    @classmethod
    def training_needs(cls, config: TPatcherConfig, of: Bytes) -> Needs:
        return Needs(edit=of.passing, at_once=config.batch_tokens)

    @classmethod
    def _needs(cls, config: TPatcherConfig, of: Bytes, keys: float, targets: float) -> Needs:
        """Against a memory of so many keys, with so many target tokens."""
        neurons = min(targets, config.max_neurons)
        # a_i(m) of every neuron and key of a part, and, where these are in 16 bits, the keys with the largest; keys and
        # values of the neurons; what enters and leaves the last FFN
        sizes = SINGLE + of.size if of.size < SINGLE else 0
        largest = min(-(-config.top_memories // config.copies), keys) * sizes * of.shape.width
        training = neurons * (SINGLE * (ACTIVATIONS * min(keys, CHUNK) + 4 * ADAM * of.shape.width) + largest)
        return Needs(edit=training + targets * (of.logits + SINGLE * POSITION * of.shape.width),
                     at_once=config.edits_at_once, each=SINGLE * (3 * neurons + targets) * of.shape.width)

    @classmethod
    def training_settings(cls, config: TPatcherConfig) -> dict[str, Any]:
        return {"memory_queries": config.memory_queries, "memory_unchanged": config.memory_unchanged}

    @classmethod
    def train(cls, model: LanguageModel, config: TPatcherConfig, examples: Sequence[Example], *, seed: int = 0,
              checkpoint: Checkpoint | None = None, on_step: Callable[[int, float], None] | None = None) -> Artefact:
        """Collects the memory from the examples' questions with their true answers; a tenth of them is held out."""
        asked = {(each.request.prompt, each.request.target_true or each.request.target) for each in examples}
        if config.memory_unchanged:
            asked |= {(question.prompt, question.target) for each in examples for question in each.unchanged}
        queries = sorted(asked)
        random.Random(f"memory {seed}").shuffle(queries)
        queries = queries[: config.memory_queries]
        if len(queries) < 2:
            raise InputError(f"t-patcher's memory needs at least two training questions, got {len(queries)}")
        held_out = max(len(queries) // VALIDATION_SHARE, 1)
        tensors = {"keys": _memory(model, queries[held_out:], config.batch_tokens),
                   "validation_keys": _memory(model, queries[:held_out], config.batch_tokens)}
        return Artefact(cls.name, cls.training_version, cls.training_settings(config), model.digest, tensors,
                        {"queries": len(queries) - held_out, "held_out": held_out})

    @cached_property
    def _learned(self) -> tuple[Tensor, Tensor]:
        learned = self.artefact.fitted(dict.fromkeys(("keys", "validation_keys"),
                                                     Slot(None, (None, self.model.width))))
        keys, held_out = learned["keys"], learned["validation_keys"]
        # Exact in the 16 bits that they are stored in; where the model is in fp32, parts are not made fp32 every step.
        dtype = torch.float if self.model.module.dtype == torch.float else keys.dtype
        return keys.to(self.model.device, dtype), held_out.to(self.model.device, dtype)

    def memories(self) -> tuple[Tensor, Tensor]:
        """FFN inputs [keys, width] at which neurons should be silent, to train against and held out: those of other
        questions, and to both those of the edits before, which the published code adds in every copy."""
        earlier = [term.queries.to(self._learned[0].dtype).repeat(self.config.copies, 1) for patch in self.model.patches
                   for term in patch.terms if isinstance(term, Neurons) and term.queries is not None]
        keys, held_out = self._learned
        if not earlier:  # else the whole memory would be there twice
            return keys, held_out
        return torch.cat([keys, *earlier]), torch.cat([held_out, *earlier])

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        memory, held_out = self.memories()
        # Targets of as many tokens together: each of an edit's tokens may need a neuron, and all edits of a loop get as
        # many as one of them needs.
        tokens = [len(self.model.encode(each.prompt, each.target, end=True).target) for each in requests]
        patches: dict[int, Patch] = {}
        needs = self._needs(self.config, self.model.bytes, len(memory), max(tokens, default=0))
        for numbers in alike(tokens, self.model.at_once(needs.at_once, needs.edit)):
            part = [requests[number] for number in numbers]
            training = NeuronTraining(self.model, self.config, self.read(part), part, self.seed)
            training.train(memory, held_out)
            patches |= {number: training.patch(edit) for edit, number in enumerate(numbers)}
        return [patches[number] for number in range(len(requests))]

    @torch.no_grad()
    def read(self, requests: Sequence[EditRequest]) -> Positions:
        """All target positions of the requests, the end token's included where targets have one."""
        batch = self.model.collate([self.model.encode(each.prompt, each.target, end=True) for each in requests])
        path = self.model.ffn_path(self.model.depth - 1)
        with capture_inputs(self.model, [path]) as inputs, capture_outputs(self.model, [path]) as outputs:
            last = self.model.run_to(batch, BlockRef("decoder", self.model.depth))
        at = batch.row, batch.position
        return Positions(inputs[path][at].float(), outputs[path][at].float(), last[at].float(), batch.target,
                         batch.row)


@torch.no_grad()
def _memory(model: LanguageModel, queries: Sequence[tuple[str, str]], batch_tokens: int) -> Tensor:
    """The last FFN's inputs [keys, width], halves in main memory, at all positions that the decoder reads, but a
    decoder-only model's first: it sees one token there, whatever the question."""
    path = model.ffn_path(model.depth - 1)
    rows = [model.encode(prompt, target) for prompt, target in queries]
    found = []
    for numbers in by_length([*map(len, rows)], model.at_once(batch_tokens, model.bytes.passing)):
        batch = model.collate([rows[number] for number in numbers])
        with capture_inputs(model, [path]) as inputs:
            model.run_to(batch, BlockRef("decoder", model.depth))
        read = batch.attention_mask.bool() & ((batch.position_ids > 0) | model.has_encoder)
        found.append(inputs[path][read].half().cpu())
    return torch.cat(found)
