"""The value optimiser of ROME and MEMIT: what an edited block should write at the subject's last token.

For every request a vector delta is trained that, added to the output of one block at the subject's last token, makes
the target likely in all contexts and keeps "{subject} is a" as it was (Meng et al. 2022, Eq. 4). In GPT-J's parallel
block an addition to the MLP's output equals one to the block's output, so ROME and MEMIT share this. Blocks up to the
edited one are run once; the loop runs only those above, for a whole batch of edits at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.editor import EditorConfig
from editors.core.models.architectures import Shape
from editors.core.models.batches import Batch, BlockRef, Encoded
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.models.model import KeysValues, LanguageModel
from editors.core.requests import EditRequest

CONTEXT = 7  # tokens that take as long as one row, forth and back through the blocks above the edited one


class ValueConfig(EditorConfig):
    """`contexts` are (length, count) pairs of sampled prefixes; `clamp` bounds |delta| relative to the anchor's norm;
    `stop_loss` ends an edit early; `batch_tokens` bounds the tokens of one optimisation batch (memory)."""

    steps: PositiveInt = 20
    lr: PositiveFloat = 0.5
    weight_decay: float = Field(0.5, ge=0)
    kl: float = Field(0.0625, ge=0)
    clamp: PositiveFloat = 4.0
    stop_loss: float = Field(5e-2, ge=0)
    contexts: tuple[tuple[PositiveInt, PositiveInt], ...] = ((5, 10), (10, 10))
    batch_tokens: PositiveInt = 8192

    def cost(self, shape: Shape) -> float:
        """Floating point operations of one edit: its rows are the prompt in its contexts, bare, and what the edit
        should leave as it was."""
        rows = 2 + sum(count for _, count in self.contexts)
        return shape.flops(CONTEXT * self.steps * rows)


@dataclass(frozen=True)
class Values:
    """Per edit: `delta` and `anchor` [edits, width], the FFN keys [edits, contexts, inner] and values [edits,
    contexts, width] at the subject's last token before the edit, and the loss and steps of the optimisation."""

    delta: Tensor
    anchor: Tensor
    keys: Tensor
    values: Tensor
    loss: Tensor
    steps: Tensor


def optimise_values(model: LanguageModel, requests: Sequence[EditRequest], layer: int, contexts: Sequence[str],
                    config: ValueConfig, *, anchor: str) -> Iterator[tuple[list[int], Values]]:
    """Yields (request numbers, values) for groups of requests of similar length.

    `anchor` is the path of the module whose output, for the bare prompt at the subject's last token, scales clamp and
    weight decay: the MLP for ROME, the block for MEMIT.
    """
    rows = [_Rows.encode(model, request, contexts) for request in requests]
    for numbers in chunks([row.longest * (len(contexts) + 1) for row in rows], config.batch_tokens):
        yield numbers, _Optimisation(model, [rows[n] for n in numbers], layer, config, anchor).run()


def chunks(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Numbers of items in groups of similar size: a group's largest size times its length is within the budget, unless
    it holds a single item."""
    chunk: list[int] = []
    for number in sorted(range(len(sizes)), key=sizes.__getitem__):
        if chunk and sizes[number] * (len(chunk) + 1) > budget:
            yield chunk
            chunk = []
        chunk.append(number)
    if chunk:
        yield chunk


def in_context(request: EditRequest, context: str) -> EditRequest:
    """The request with a text before its prompt."""
    assert request.subject_start is not None
    return replace(request, prompt=context + request.prompt, subject_start=len(context) + request.subject_start)


@dataclass(frozen=True)
class _Rows:
    """One request as token rows: the prompt in every context, and "{subject} is a" up to its subject."""

    prompts: list[Encoded]
    subjects: list[int]
    essence: Encoded

    @classmethod
    def encode(cls, model: LanguageModel, request: EditRequest, contexts: Sequence[str]) -> _Rows:
        within = [in_context(request, context) for context in contexts]
        essence = EditRequest(f"{request.subject} is a", request.subject, request.target)
        # The distribution is compared right after the subject, so nothing behind it needs to be read.
        upto = model.encode(essence.prompt).prompt[: model.subject_index(essence) + 1]
        return cls([model.encode(r.prompt, r.target) for r in within], [model.subject_index(r) for r in within],
                   Encoded(upto, ()))

    @property
    def longest(self) -> int:
        return max(map(len, self.prompts))


@dataclass(frozen=True)
class _Suffixes:
    """Rows from the subject's last token on: all that a delta there can change.

    `hidden` [rows, length, width] leaves the edited block, `past` holds what attention needs of the tokens before,
    `edit` [rows] is each row's edit and `essence` the rows that only guard the subject's distribution.
    """

    batch: Batch
    hidden: Tensor
    past: KeysValues
    edit: Tensor
    is_essence: Tensor

    def select(self, rows: Tensor) -> _Suffixes:
        return _Suffixes(self.batch.select(rows), self.hidden[rows], [(k[rows], v[rows]) for k, v in self.past],
                         self.edit[rows], self.is_essence[rows])


class _Optimisation:
    """Deltas of one batch of edits. Rows are all prompts of all edits, then one essence row per edit."""

    def __init__(self, model: LanguageModel, edits: Sequence[_Rows], layer: int, config: ValueConfig,
                 anchor: str) -> None:
        self.model, self.layer, self.config = model, layer, config
        self.edits, self.contexts = len(edits), len(edits[0].prompts)
        device = model.device
        numbers = torch.arange(self.edits, device=device)
        edit = torch.cat([numbers.repeat_interleave(self.contexts), numbers])
        subject = torch.tensor([i for row in edits for i in row.subjects]
                               + [len(row.essence) - 1 for row in edits], device=device)
        batch = model.collate([prompt for row in edits for prompt in row.prompts] + [row.essence for row in edits])
        self._read_base(batch, edit, subject, anchor)

    @torch.no_grad()
    def _read_base(self, batch: Batch, edit: Tensor, subject: Tensor, anchor: str) -> None:
        model, block, down = self.model, self.model.block_path(self.layer), self.model.down_path(self.layer)
        with capture_inputs(model, [down]) as inputs, capture_outputs(model, [block, down, anchor]) as outputs:
            states, cache = model.states_and_cache(batch)
        rows = torch.arange(len(subject), device=subject.device)
        prompts, essences = rows[: self.edits * self.contexts], rows[self.edits * self.contexts:]

        def at_subject(states: Tensor) -> Tensor:
            return states[prompts, subject[prompts]].float().reshape(self.edits, self.contexts, -1)

        self.keys, self.values = at_subject(inputs[down]), at_subject(outputs[down])
        self.anchor = at_subject(outputs[anchor])[:, 0]
        self.base = model.head(states[essences, subject[essences]]).log_softmax(-1)
        suffix, taken = batch.suffix(subject)
        before = int(subject.max())
        self.rows = _Suffixes(suffix, outputs[block][rows[:, None], taken],
                              [(keys[:, :, :before], values[:, :, :before]) for keys, values in cache],
                              edit, rows >= len(prompts))

    def run(self) -> Values:
        """Adam on all deltas at once; an edit whose loss is low enough stops moving and leaves the batch."""
        config, norms = self.config, self.anchor.norm(dim=1)
        delta = nn.Parameter(torch.zeros_like(self.anchor))
        optimizer = torch.optim.Adam([delta], lr=config.lr)
        loss = torch.full((self.edits,), torch.inf, device=delta.device)
        steps = torch.zeros(self.edits, dtype=torch.long, device=delta.device)
        active = torch.ones(self.edits, dtype=torch.bool, device=delta.device)
        rows = self.rows
        for step in range(config.steps):
            current = self._loss(rows, delta, norms)
            loss = torch.where(active, current.detach(), loss)
            done = active & (loss < config.stop_loss)
            if done.any():
                active = active & ~done
                rows = rows.select(active[rows.edit].nonzero().flatten())
            if step == config.steps - 1 or not active.any():  # the last step only evaluates
                break
            optimizer.zero_grad()
            current[active].sum().backward()
            with torch.no_grad():
                before = delta.clone()
                optimizer.step()
                limit = config.clamp * norms
                delta.mul_((limit / delta.norm(dim=1)).clamp(max=1.0)[:, None])
                delta.copy_(torch.where(active[:, None], delta, before))
            steps += active
        return Values(delta.detach(), self.anchor, self.keys, self.values, loss, steps)

    def _loss(self, rows: _Suffixes, delta: Tensor, norms: Tensor) -> Tensor:
        """The objective of every edit [edits]; only that of edits with rows here means anything."""
        hidden = rows.hidden.float()
        moved = torch.cat([hidden[:, :1] + delta[rows.edit][:, None], hidden[:, 1:]], 1).to(rows.hidden.dtype)
        states = self.model.run_from(moved, rows.batch, BlockRef("decoder", self.layer + 1), rows.past)
        likelihood = self._negative_log_likelihood(states, rows)
        essence = rows.is_essence.nonzero().flatten()
        drift = delta.new_zeros(self.edits).index_add(
            0, rows.edit[essence], self._divergence(states[essence, 0], rows.edit[essence]))
        length: Tensor = delta.norm(dim=1)
        return likelihood + self.config.kl * drift + self.config.weight_decay * length / norms**2

    def _negative_log_likelihood(self, states: Tensor, rows: _Suffixes) -> Tensor:
        """Mean over contexts of the mean over target tokens of -log p(token)."""
        batch = rows.batch
        logits = self.model.head(states[batch.row, batch.position])
        nll = nn.functional.cross_entropy(logits, batch.target, reduction="none")
        tokens = torch.bincount(batch.row, minlength=len(rows.edit))[batch.row]
        share = nll / (tokens * self.contexts)
        return share.new_zeros(self.edits).index_add(0, rows.edit[batch.row], share)

    def _divergence(self, states: Tensor, edit: Tensor) -> Tensor:
        """KL(edited || base) of the next-token distribution after the subject."""
        edited = self.model.head(states).log_softmax(-1)
        divergence: Tensor = nn.functional.kl_div(self.base[edit], edited, log_target=True, reduction="none").sum(-1)
        return divergence
