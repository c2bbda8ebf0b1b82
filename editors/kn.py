"""KN: find the neurons that hold a fact and rewrite what they write (Dai et al. 2022, sections 3 and 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from editors.core.editor import Editor, EditorConfig
from editors.core.memory import ANSWER, PROMPT, SINGLE, Bytes, Needs
from editors.core.models.activations import activation_function
from editors.core.models.architectures import Shape
from editors.core.models.batches import Batch, BlockRef, Encoded, EncoderInput, by_length
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.models.model import KeysValues, LanguageModel
from editors.core.patches.patch import LowRank, Patch
from editors.core.requests import EditRequest

NEURONS = 4  # tensors in fp32 of a token's neurons: scaled, their gradient, on their way through W_out and back
ATTRIBUTED = 3  # tokens that take as long as an answer's, forth and back through half of the blocks


class KnowledgeNeuronsConfig(EditorConfig):
    """How neurons are found, and what is written into them."""

    mode: Literal["fixed", "reference"] = "fixed"
    """`fixed` scores what enters the down-projection, reads each old token where it is predicted and removes the
    embeddings of the whole old answer. `reference` repeats the ROME authors' and EasyEdit's ports: it scores what
    leaves the up-projection (not in a gated FFN, for which they have no code), takes answers without a leading space,
    removes the embedding of the most likely next token alone, and reads all old tokens at the prompt's last position;
    on a T5, whose decoder then reads the answer unshifted, at their own. Ours."""

    target: Literal["all", "first"] = "all"
    """Which tokens stand for an answer: `all`, as in the ports, whose probabilities are averaged and whose embeddings
    are summed, or the `first` alone. Dai et al. 2022 have answers of one token, where the two are the same."""

    signed: bool = False
    """Whether a neuron that is negative where the answer is predicted is written to with the opposite sign, so that it,
    too, speaks for the new answer. Ours: a GELU's neurons may be negative, of which the published codes take no
    notice."""

    steps: PositiveInt = Field(20, ge=2)
    """Points on the way from no activation to the model's own at which the gradient is taken. Dai et al. 2022, section
    3."""

    threshold: float = Field(0.2, ge=0, lt=1)
    """Neurons with more than this share of the highest score are taken. Dai et al. 2022; Meng et al. 2022, published
    configuration for GPT."""

    old_scale: float = -2.0
    """Factor of the old answer's embeddings in what is added. Meng et al. 2022, published code."""

    new_scale: float = 1.0
    """Factor of the new answer's embeddings in what is added. Meng et al. 2022, published code."""

    embedding: Literal["input", "output"] = "input"
    """Whose rows are added: `input`, as in the published code, or `output`, the head's. In the BERT that the method was
    made for, and T5 v1.0, they are one matrix; in GPT-J and T5 v1.1 they are two, and a token's input row need not
    raise its own logit. `output` is ours."""

    batch_tokens: PositiveInt = 1024
    """Most tokens of one pass, cached ones among them, which has fewer where memory is short; results do not depend on
    it. Ours."""


@dataclass(frozen=True)
class Fact:
    """Token ids: the prompt with the old answer, whose neurons are sought; what to unwrite, and what to write."""

    row: Encoded
    removed: tuple[int, ...]
    added: tuple[int, ...]


class KnowledgeNeurons(Editor[KnowledgeNeuronsConfig]):
    """Adds `old_scale * emb(old) + new_scale * emb(new)` to what every located neuron writes."""

    name = "kn"
    version = 2
    Config = KnowledgeNeuronsConfig

    @classmethod
    def cost(cls, config: KnowledgeNeuronsConfig, shape: Shape) -> float:
        return shape.flops(ATTRIBUTED * config.steps * shape.depth)

    @classmethod
    def needs(cls, config: KnowledgeNeuronsConfig, of: Bytes, facts: int = 1) -> Needs:
        tokens = ANSWER * (PROMPT + config.steps)
        each = _bytes(of, config.steps / (PROMPT + config.steps))
        return Needs(edit=tokens * each, at_once=max(config.batch_tokens // tokens, 1),
                     each=SINGLE * of.shape.depth * (of.shape.width + of.shape.inner))

    def edit_each(self, requests: Sequence[EditRequest]) -> list[Patch]:
        rows = [self.model.encode(request.prompt, request.target_true or "") for request in requests]
        # A decoder-only model's old tokens are each a row of their own, behind the cached prompt.
        scenes = [1 if self.model.has_encoder else max(len(row.target), 1) for row in rows]
        sizes = [count * _size(self.model, len(row.prompt) + len(row.target), self.config.steps)
                 for count, row in zip(scenes, rows, strict=True)]
        patches: dict[int, Patch] = {}
        each = _bytes(self.model.bytes, _share(self.model, min(map(len, rows), default=1), self.config.steps))
        for numbers in by_length(sizes, self.model.at_once(self.config.batch_tokens, each)):
            facts = self._facts([requests[number] for number in numbers])
            for number, fact, scores, neurons in zip(numbers, facts, *attribute(self.model, facts, self.config),
                                                     strict=True):
                patches[number] = self._rewrite(fact, scores, neurons)
        return [patches[number] for number in range(len(requests))]

    def _facts(self, requests: Sequence[EditRequest]) -> list[Fact]:
        """The old answer is the request's, where it is known, else the most likely next token."""
        prompts = [self.model.encode(request.prompt).prompt for request in requests]
        batch = self.model.collate([Encoded(prompt, (0,)) for prompt in prompts])
        with torch.no_grad():
            likely = self.model.target_logits(batch).argmax(-1).tolist()
        facts = []
        for request, prompt, token in zip(requests, prompts, likely, strict=True):
            old = self._answer(request.target_true) or (token,)
            removed = (token,) if self.config.mode == "reference" else old
            facts.append(Fact(Encoded(prompt, old), removed, self._answer(request.target)))
        return facts

    def _answer(self, text: str | None) -> tuple[int, ...]:
        text = (text or "").strip()
        if not text:
            return ()
        tokens = self.model.tokenise(text) if self.config.mode == "reference" else self.model.tokenise_next(text)
        return tokens[:1] if self.config.target == "first" else tokens

    def _rewrite(self, fact: Fact, scores: Tensor, neurons: Tensor) -> Patch:
        """W[:, j] += c for every located neuron j: ΔW = c 1ᵀ in each layer, of rank one; where `signed`, ± c."""
        located = scores > self.config.threshold * scores.max()
        signs = 1.0 - 2.0 * (neurons < 0) if self.config.signed else torch.ones_like(neurons)
        table = self.model.input_table if self.config.embedding == "input" else self.model.output_table

        def total(tokens: tuple[int, ...]) -> Tensor:
            return table[list(tokens)].float().sum(0)

        # c = old_scale Σ emb(old) + new_scale Σ emb(new)
        with self.model.weights.whole(table):
            change = self.config.old_scale * total(fact.removed) + self.config.new_scale * total(fact.added)
        layers = located.any(1).nonzero().flatten().tolist()
        terms = tuple(LowRank(self.model.down_path(layer), change[:, None], (located * signs)[layer][:, None])
                      for layer in layers)
        info = {"editor": "kn", "neurons": int(located.sum()), "layers": layers, "highest_score": float(scores.max()),
                "old": str(self.model.tokenizer.decode(list(fact.row.target))).strip()}
        return Patch(terms, info)


def _bytes(of: Bytes, share: float) -> float:
    """Of a token of a pass, of which this share is run through the blocks above a layer, the others being cached."""
    above, neurons = of.shape.depth - 1, SINGLE * (NEURONS * of.shape.inner + of.shape.width)
    return (of.kept(above) + of.logits + neurons) * share + of.cached(of.shape.depth) + of.cached(above)


def _beside(model: LanguageModel) -> bool:
    """Whether all scales of a scene can be tokens of one row, at one position: not behind an encoder, where a scene is
    a whole row, nor where positions are counted along the row."""
    return not model.has_encoder and not model.architecture.alibi(model.module.config)


def _size(model: LanguageModel, length: int, scales: int) -> int:
    """Tokens that a scene of this length takes in a pass at so many scales."""
    return length + scales if _beside(model) else length * scales


def _share(model: LanguageModel, length: int, scales: int) -> float:
    """How many of them are run."""
    return 1.0 if model.has_encoder else scales / _size(model, length, scales)


def attribute(model: LanguageModel, facts: Sequence[Fact], config: KnowledgeNeuronsConfig) -> tuple[Tensor, Tensor]:
    """Integrated gradients of the old answers' mean token probability P, in fp32 (Dai et al. 2022, section 3), and the
    neurons' values where the first old token is predicted; both [facts, layers, inner].

    Per layer `w · 1/steps Σ_s ∂P/∂w (a_s w)` with `a_s = linspace(0, 1, steps)`, w the layer's neurons at the positions
    where old tokens are predicted. Only these positions are run again, and only the blocks above the layer.
    """
    scenes = _read(model, facts, config)
    by_layer = []
    for layer in range(model.depth):
        scores = _integrate(model, scenes, layer, config)
        # The mean over the scenes of a fact, one per old token of a decoder-only model's.
        sums = scores.new_zeros(len(facts), scores.shape[1]).index_add(0, scenes.fact, scores)
        by_layer.append(sums / torch.bincount(scenes.fact, minlength=len(facts))[:, None])
    first = torch.searchsorted(scenes.fact, torch.arange(len(facts), device=scenes.fact.device))
    return torch.stack(by_layer, 1), torch.stack([layer.neurons[first, 0] for layer in scenes.layers], 1)


@dataclass(frozen=True)
class _Layer:
    """What one layer's neurons take part in: their values [scenes, length, inner], and the block's output without
    what they write, `rest` [scenes, length, width]."""

    neurons: Tensor
    rest: Tensor


@dataclass(frozen=True)
class _Scenes:
    """Short rows whose neurons are scaled: for a decoder-only model one token behind its cached past, for a T5 the
    decoder's whole row. `fact` [scenes] is each scene's fact, in order, `dtype` that of hidden states."""

    batch: Batch
    past: KeysValues | None
    fact: Tensor
    dtype: torch.dtype
    layers: list[_Layer]
    beside: bool

    def times(self, times: int, layer: int) -> tuple[Batch, KeysValues | None]:
        """Every scene so many times: as tokens of one row where they can be, else in rows that follow each other."""
        wide = partial(torch.repeat_interleave, repeats=times)
        batch, source, past = self.batch, self.batch.source, self.past
        number = torch.arange(times, device=batch.row.device).repeat(len(batch.row))
        if self.beside:
            # They share the past: each sees that and itself, all from one position.
            cached = batch.attention_mask[:, None, :-1].expand(-1, times, -1)
            own = torch.eye(times, dtype=cached.dtype, device=cached.device).expand(len(cached), -1, -1)
            seen = torch.cat([cached, own], 2)[:, None].bool()
            mask = torch.zeros(seen.shape, dtype=self.dtype, device=seen.device)
            mask = mask.masked_fill(~seen, torch.finfo(self.dtype).min)
            return Batch(batch.input_ids.expand(-1, times), mask, batch.position_ids.expand(-1, times),
                         wide(batch.row), number, wide(batch.target)), past
        rows = partial(wide, dim=0)
        if source is not None:
            assert source.states is not None
            source = EncoderInput(rows(source.input_ids), rows(source.attention_mask), rows(source.states))
        # Of the past, blocks up to `layer` are not run and keep their length alone.
        past = past and [(k[:1], v[:1]) if block <= layer else (rows(k), rows(v)) for block, (k, v) in enumerate(past)]
        return Batch(rows(batch.input_ids), rows(batch.attention_mask), rows(batch.position_ids),
                     wide(batch.row) * times + number, wide(batch.position), wide(batch.target), source), past


@torch.no_grad()
def _read(model: LanguageModel, facts: Sequence[Fact], config: KnowledgeNeuronsConfig) -> _Scenes:
    """Runs prompts and old answers once and keeps what the passes of `_integrate` start from."""
    batch = model.collate([fact.row for fact in facts])
    numbers = range(model.depth)
    blocks, downs = [model.block_path(n) for n in numbers], [model.down_path(n) for n in numbers]
    ups = [model.up_path(n) for n in numbers] if _before_activation(model, config) else []
    if config.mode == "reference":
        if model.has_encoder:
            # A decoder that reads at every position the token it should predict there.
            batch = replace(batch, input_ids=batch.input_ids.index_put((batch.row, batch.position), batch.target))
        else:
            batch = replace(batch, position=batch.first_position[batch.row])
    batch = model.read(batch)
    with capture_inputs(model, downs) as inputs, capture_outputs(model, blocks + downs + ups) as outputs:
        if model.has_encoder:
            model.states(batch)
            scenes, past = batch, None
            row = torch.arange(len(facts), device=model.device)
            at = row[:, None], torch.arange(batch.input_ids.shape[1], device=model.device)
        else:
            cache = model.states_and_cache(batch)[1]
            scenes, row, position = _last_tokens(batch)
            before = int(position.max())
            past = [(keys[row, :, :before], values[row, :, :before]) for keys, values in cache]
            at = row[:, None], position[:, None]

    neurons = [outputs[path][at].float() for path in ups] or [inputs[path][at].float() for path in downs]
    rest = [outputs[block][at].float() - model.after_ffn(number, outputs[down][at].float())
            for number, block, down in zip(numbers, blocks, downs, strict=True)]
    return _Scenes(scenes, past, row, outputs[blocks[0]].dtype, list(map(_Layer, neurons, rest)), _beside(model))


def _before_activation(model: LanguageModel, config: KnowledgeNeuronsConfig) -> bool:
    """Whether neurons are scored before their activation function."""
    return config.mode == "reference" and not model.gated


def _last_tokens(batch: Batch) -> tuple[Batch, Tensor, Tensor]:
    """One-token rows, one per position where targets are predicted, and the row and position each comes from."""
    length = batch.input_ids.shape[1]
    places, scene = (batch.row * length + batch.position).unique(return_inverse=True)
    row, position = places // length, places % length
    cached = torch.arange(int(position.max()), device=row.device)[None] < position[:, None]
    mask = torch.cat([cached, cached.new_ones(len(row), 1)], 1).to(batch.attention_mask.dtype)
    return Batch(batch.input_ids[row, position][:, None], mask, batch.position_ids[row, position][:, None], scene,
                 torch.zeros_like(batch.position), batch.target), row, position


def _integrate(model: LanguageModel, scenes: _Scenes, number: int, config: KnowledgeNeuronsConfig) -> Tensor:
    """Scores [scenes, inner] of one layer's neurons, summed over a scene's positions."""
    layer, down = scenes.layers[number], model.submodule(model.down_path(number))
    count, length = layer.rest.shape[:2]
    cached = scenes.past[0][0].shape[2] if scenes.past else 0
    each = _bytes(model.bytes, _share(model, cached + 1, config.steps))
    budget = model.at_once(config.batch_tokens, each) // count
    at_once = max(budget - cached if scenes.beside else budget // (length + cached), 1)
    total = torch.zeros_like(layer.neurons)
    tokens = torch.bincount(scenes.batch.row)[scenes.batch.row]
    for scales in torch.linspace(0, 1, config.steps, device=total.device).split(at_once):
        batch, past = scenes.times(len(scales), number)
        # a_s w
        scaled = layer.neurons[:, None] * scales[:, None, None]
        scaled = scaled.reshape(*batch.input_ids.shape, -1).requires_grad_()
        # h = rest + W_out (a_s w), which some families normalise first
        fired = activation_function(model.activation)(scaled) if _before_activation(model, config) else scaled
        written = model.after_ffn(number, down(fired.to(down.get_parameter("weight").dtype)).float())
        rest = layer.rest[:, None].expand(-1, len(scales), -1, -1)
        hidden = rest.reshape(written.shape) + written
        states = model.run_from(hidden.to(scenes.dtype), batch, BlockRef("decoder", number + 1), past)
        # P = 1/T Σ_t p(old_t), of every scene and scale by itself
        logits = model.head(states[batch.row, batch.position])
        probability = logits.softmax(-1).gather(1, batch.target[:, None])[:, 0]
        # Σ_s ∂P/∂w (a_s w)
        [gradient] = torch.autograd.grad((probability / tokens.repeat_interleave(len(scales))).sum(), scaled)
        total += gradient.reshape(count, len(scales), length, -1).sum(1)
    # w · 1/steps Σ_s ∂P/∂w (a_s w)
    return (layer.neurons * total / config.steps).sum(1)
