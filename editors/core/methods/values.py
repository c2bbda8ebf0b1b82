"""The value optimiser of ROME and MEMIT: what an edited block should write at the subject's last token.

For every request a vector δ is trained that is added to the output of one block at the subject's last token (Meng et
al. 2022, Eq. 4; Meng et al. 2023, Eq. 16):

    L(δ) = 1/N Σ_j NLL_δ(o | context_j p)  +  kl · KL(p_δ(· | s) ‖ p(· | s))  +  weight_decay · ‖δ‖ / ‖a‖²

with ‖δ‖ ≤ clamp ‖a‖ for an anchor a. In a parallel block (GPT-J), and in one that ends in its FFN (Llama), an addition
to the FFN's output equals one to the block's output, so ROME and MEMIT share this; where the family normalises what the
FFN writes (Gemma, OLMo 2), δ is added before that, to what W_out gives. Blocks up to the edited one are run once; the
loop runs only those above, for a whole batch of edits at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.editor import EditorConfig
from editors.core.memory import ANSWER, PROMPT, SUFFIX, Bytes, Needs
from editors.core.methods.value_rows import Rows, Suffixes, common, groups, row_bytes
from editors.core.models.architectures import Shape
from editors.core.models.batches import Batch, BlockRef, Encoded
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.models.model import LanguageModel
from editors.core.models.prefixes import Read, read
from editors.core.models.sparing import Places, only_first, only_real, only_targets
from editors.core.requests import EditRequest

CONTEXT = 7  # tokens that take as long as one row, forth and back through the blocks above the edited one


class ValueConfig(EditorConfig):
    """How the value is sought."""

    steps: PositiveInt = 20
    """Evaluations of the loss; the last moves nothing. Meng et al. 2022, published configuration."""

    lr: PositiveFloat = 0.5
    """Adam's learning rate. Meng et al. 2022, E.5."""

    weight_decay: float = Field(0.5, ge=0)
    """Weight of the value's length in the loss. Meng et al. 2022, published configuration."""

    kl: float = Field(0.0625, ge=0)
    """Weight of keeping what the model says of the subject, in the loss. Meng et al. 2022, E.5."""

    clamp: PositiveFloat = 4.0
    """Most that the value may change, as a multiple of the norm of the bare prompt's FFN output. Meng et al. 2022,
    published configuration."""

    stop_loss: float = Field(5e-2, ge=0)
    """Loss, in nats, below which an edit is done. Meng et al. 2022, published configuration."""

    contexts: tuple[tuple[PositiveInt, PositiveInt], ...] = ((5, 10), (10, 10))
    """Texts sampled from the model, before which the edit should hold too, as pairs of length in tokens and number; the
    bare prompt always counts. Meng et al. 2022, E.5."""

    batch_tokens: PositiveInt = 8192
    """Most tokens of one optimisation, which has fewer where memory is short; results do not depend on it. Ours."""

    def cost(self, shape: Shape) -> float:
        """Floating point operations of one edit: its rows are the prompt in its contexts, bare, and what the edit
        should leave as it was."""
        rows = 2 + sum(count for _, count in self.contexts)
        return shape.flops(CONTEXT * self.steps * rows)

    def needs(self, of: Bytes, layer: int) -> Needs:
        """What the search takes of memory for each edit, above block `layer`."""
        lengths = [0, *(length for length, count in self.contexts for _ in range(count))]
        edit = sum(row_bytes(of, layer, PROMPT + length, SUFFIX, ANSWER) for length in lengths)
        return Needs(edit=edit + row_bytes(of, layer, PROMPT, SUFFIX, 1),
                     at_once=max(self.batch_tokens // ((PROMPT + max(lengths)) * (len(lengths) + 1)), 1))


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
    """Yields (request numbers, values) for groups of requests that are optimised at once.

    `anchor` is the path of the module whose output, for the bare prompt at the subject's last token, scales clamp and
    weight decay: the MLP for ROME, the block for MEMIT.
    """
    rows = [Rows.encode(model, request, contexts) for request in requests]
    # bytes of a token of whole rows, where these are most
    each = max((row.nbytes(model.bytes, layer) / row.tokens for row in rows), default=0.0)
    for parts in groups(rows, model.at_once(config.batch_tokens, each), model.device.type):
        optimisation = _Optimisation(model, [[rows[n] for n in part] for part in parts], layer, config, anchor)
        yield [number for part in parts for number in part], optimisation.run()


class _Optimisation:
    """Deltas of one batch of edits. The rows of a part are all prompts of its edits; the first has the essence rows of
    all edits, which are one token behind their past: alone, where nothing pads them, unless there is just one edit."""

    def __init__(self, model: LanguageModel, parts: Sequence[Sequence[Rows]], layer: int, config: ValueConfig,
                 anchor: str) -> None:
        self.model, self.layer, self.config, self.anchor_path = model, layer, config, anchor
        edits = [one for part in parts for one in part]
        self.edits, self.contexts = len(edits), len(edits[0].prompts)
        self.base = torch.empty(0)
        parts = [[], *parts] if self.edits > 1 else parts
        numbers = torch.arange(self.edits, device=model.device).split([*map(len, parts)])
        essences = ([one.essence for one in edits], *[[]] * (len(parts) - 1))
        self.parts, *read = zip(*map(self._read, parts, numbers, essences), strict=True)
        self.keys, self.values, self.anchor = map(torch.cat, read)

    @torch.no_grad()
    def _read(self, edits: Sequence[Rows], numbers: Tensor,
              essences: Sequence[Encoded]) -> tuple[Suffixes, Tensor, Tensor, Tensor]:
        """Runs the rows of a part once: what the loop starts from, and its edits' keys, values and anchors. Of essences
        it keeps what the model says after them, p(· | s)."""
        model, block, down = self.model, self.model.block_path(self.layer), self.model.down_path(self.layer)
        # In a parallel block no FFN reads of other positions than its own; the last one is spared most of them anyway.
        after = [model.ffn_path(self.layer + 1)] if model.parallel and self.layer + 2 < model.depth else []
        prompts = [prompt for one in edits for prompt in one.prompts]
        batch = model.collate([*prompts, *essences])
        subject = torch.tensor([*(place for one in edits for place in one.subjects), *(len(s) - 1 for s in essences)],
                               device=model.device)
        rows = torch.arange(len(subject), device=subject.device)
        essence = rows >= len(prompts)
        with (capture_inputs(model, [down]) as inputs,
              capture_outputs(model, [block, down, self.anchor_path, *after]) as outputs):
            start = subject.new_tensor(common(edits) * len(edits) + [0] * len(essences))
            # Of prompts the loop needs no more than the past of their subjects' last tokens.
            found = read(model, batch, start, self.contexts, self.layer + 1 + len(after), subject + essence,
                         rows[essence])
        place = found.at(subject[:, None])[:, 0]
        if essences:
            self.base = model.head(found.final).log_softmax(-1)

        def at_subject(states: Tensor) -> Tensor:
            return states[rows, place][: len(prompts)].float().reshape(len(edits), self.contexts, states.shape[-1])

        edit = torch.cat([numbers.repeat_interleave(self.contexts), torch.arange(len(essences), device=model.device)])
        suffixes = self._suffixes(batch, subject, found, outputs[block], outputs[down][rows, place], edit,
                                  essence, *map(outputs.get, after))
        keys, values, anchors = map(at_subject, (inputs[down], outputs[down], outputs[self.anchor_path]))
        return suffixes, keys, values, anchors[:, 0]

    def _suffixes(self, batch: Batch, subject: Tensor, found: Read, hidden: Tensor, written: Tensor, edit: Tensor,
                  essence: Tensor, after: Tensor | None = None) -> Suffixes:
        suffix, taken = batch.suffix(subject)
        at, before = (torch.arange(len(subject), device=subject.device)[:, None], found.at(taken)), int(subject.max())
        # Of blocks that are not run the length alone is needed.
        past = [(keys[:1, :, :before].clone(), values[:1, :, :before].clone()) if number <= self.layer else
                found.keys_values(number, before) for number, (keys, values) in enumerate(found.cache)]
        return Suffixes(suffix, hidden[at], written.float(), past, None if after is None else after[at], edit, essence,
                        Places.of(suffix), self.layer + 1)

    def run(self) -> Values:
        """Adam on all deltas at once; an edit whose loss is low enough stops moving and leaves the batch."""
        config, norms = self.config, self.anchor.norm(dim=1)
        delta = nn.Parameter(torch.zeros_like(self.anchor))
        optimizer = torch.optim.Adam([delta], lr=config.lr)
        loss = torch.full((self.edits,), torch.inf, device=delta.device)
        steps = torch.zeros(self.edits, dtype=torch.long, device=delta.device)
        active = torch.ones(self.edits, dtype=torch.bool, device=delta.device)
        parts = [*self.parts]
        for step in range(config.steps):
            last = step == config.steps - 1  # as in the published code, it only evaluates
            optimizer.zero_grad()
            with torch.set_grad_enabled(not last):
                loss = torch.where(active, self._descend(parts, delta, norms), loss)
            done = active & (loss < config.stop_loss)
            if done.any():
                active = active & ~done
                parts = [left for part in parts if len((left := part.of(active)).edit)]
            if last or not parts:
                break
            with torch.no_grad():
                before = delta.clone()
                optimizer.step()
                # δ <- δ min(1, clamp ‖a‖ / ‖δ‖)
                limit = config.clamp * norms
                delta.mul_((limit / delta.norm(dim=1)).clamp(max=1.0)[:, None])
                # Adam's momentum would move the edits that are done.
                delta.copy_(torch.where(active[:, None], delta, before))
            steps += active
        return Values(delta.detach(), self.anchor, self.keys, self.values, loss, steps)

    def _descend(self, parts: Sequence[Suffixes], delta: Tensor, norms: Tensor) -> Tensor:
        """L(δ) of every edit [edits], of which only that of edits with rows here means anything; where gradients are
        wanted, adds those of edits that are not done to delta's. Only the first part, which has something of all edits,
        is kept until the last."""
        def back(terms: Tensor, rows: Suffixes) -> None:
            left = ~(loss < self.config.stop_loss)
            if terms.requires_grad and left[rows.edit].any():
                terms[left].sum().backward()

        first, *others = parts
        length: Tensor = delta.norm(dim=1)
        begun = self._terms(first, delta) + self.config.weight_decay * length / norms**2
        loss = begun.detach()
        for part in others:
            more = self._terms(part, delta)
            loss = loss + more.detach()
            back(more, part)
        back(begun, first)
        return loss

    def _terms(self, rows: Suffixes, delta: Tensor) -> Tensor:
        """What these rows make of the loss of every edit [edits]."""
        batch, asked, compared = rows.batch, rows.asked, rows.compared
        states = self._states(rows, delta)[batch.row, batch.position]

        terms = delta.new_zeros(self.edits)
        if len(asked):  # else the head would be run, and gathered by a gang, for nothing
            # 1/N Σ_j 1/T Σ_t -log p_δ(o_t | context_j p, o_<t)
            tokens = torch.bincount(batch.row, minlength=len(rows.edit))[batch.row[asked]]
            nll = nn.functional.cross_entropy(self.model.head(states[asked]), batch.target[asked], reduction="none")
            terms = terms.index_add(0, rows.edit[batch.row[asked]], nll / (tokens * self.contexts))
        if len(compared):
            # kl · KL(p_δ(· | s) ‖ p(· | s)), right after the subject
            edit, edited = rows.edit[batch.row[compared]], self.model.head(states[compared]).log_softmax(-1)
            divergence = nn.functional.kl_div(self.base[edit], edited, log_target=True, reduction="none").sum(-1)
            terms = terms.index_add(0, edit, self.config.kl * divergence)
        return terms

    def _states(self, rows: Suffixes, delta: Tensor) -> Tensor:
        """Final states [rows, length, width] where targets are predicted."""
        # h <- h + δ at the subject's last token, where every row begins
        hidden = rows.hidden.float()
        first = self.model.with_more(self.layer, hidden[:, 0], rows.written, delta[rows.edit])
        moved = torch.cat([first[:, None], hidden[:, 1:]], 1).to(rows.hidden.dtype)
        others = rows.above + (rows.next is not None)
        with (only_targets(self.model, rows.places), only_first(self.model, rows.above, rows.next),
              only_real(self.model, rows.places, start=others)):
            return self.model.run_from(moved, rows.batch, BlockRef("decoder", self.layer + 1), rows.past)
