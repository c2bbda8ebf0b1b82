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
from dataclasses import dataclass, replace

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from editors.core.editor import EditorConfig
from editors.core.memory import ANSWER, PROMPT, SUFFIX, Bytes, Needs
from editors.core.models.architectures import Shape
from editors.core.models.batches import Batch, BlockRef, Encoded, by_length
from editors.core.models.capture import capture_inputs, capture_outputs
from editors.core.models.model import KeysValues, LanguageModel
from editors.core.models.sparing import Places, only_first, only_targets
from editors.core.requests import EditRequest

CPU_TOKENS = 256  # of one optimisation on a CPU, enough for its products: rows of more are less alike
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
        edit = sum(_bytes(of, layer, PROMPT + length, SUFFIX, ANSWER) for length in lengths)
        return Needs(edit=edit + _bytes(of, layer, PROMPT, 1, 1),
                     at_once=max(self.batch_tokens // ((PROMPT + max(lengths)) * (len(lengths) + 1)), 1))


def _bytes(of: Bytes, layer: int, tokens: int, suffix: int, targets: int) -> float:
    """Of a row of so many tokens, of which the loop runs the `suffix` through the blocks above `layer`."""
    above = of.shape.depth - layer - 1
    # keys and values of the tokens before, and a copy of them beside the suffix's
    loop = 2 * (tokens - suffix) * of.cached(above) + suffix * of.kept(above) + targets * of.logits
    return max(loop, tokens * (of.cached(of.shape.depth) + of.passing))  # the loop, or the run before it


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
    """Yields (request numbers, values) for groups of requests that go on about as long after their subjects.

    `anchor` is the path of the module whose output, for the bare prompt at the subject's last token, scales clamp and
    weight decay: the MLP for ROME, the block for MEMIT.
    """
    rows = [_Rows.encode(model, request, contexts) for request in requests]
    # bytes of a token of whole rows, where these are most
    each = max((row.nbytes(model.bytes, layer) / row.tokens for row in rows), default=0.0)
    for numbers in _groups(rows, model.at_once(config.batch_tokens, each), model.device.type):
        yield numbers, _Optimisation(model, [rows[n] for n in numbers], layer, config, anchor).run()


def in_context(request: EditRequest, context: str) -> EditRequest:
    """The request with a text before its prompt."""
    assert request.subject_start is not None
    return replace(request, prompt=context + request.prompt, subject_start=len(context) + request.subject_start)


@dataclass(frozen=True)
class _Rows:
    """One request as token rows: the prompt in every context, the position of the subject's last token in each, and
    "{subject} is a" up to its subject."""

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
    def tokens(self) -> int:
        """Tokens of all rows, were they as long as the longest."""
        return max(map(len, [*self.prompts, self.essence])) * (len(self.prompts) + 1)

    @property
    def suffix(self) -> int:
        """Tokens from the subject's last one on, at most."""
        return max(len(row) - start for row, start in zip(self.prompts, self.subjects, strict=True))

    def nbytes(self, of: Bytes, layer: int) -> float:
        """What they take of memory above block `layer`."""
        rows = (_bytes(of, layer, len(row), len(row) - start, len(row.target))
                for row, start in zip(self.prompts, self.subjects, strict=True))
        return sum(rows) + _bytes(of, layer, len(self.essence), 1, 1)


def _groups(rows: Sequence[_Rows], budget: int, device: str) -> Iterator[list[int]]:
    """Numbers of requests whose suffixes, which the loop runs, are about as long; neither these nor the whole rows,
    which are run once, are more tokens than the budget unless they are of one request."""
    within = min(budget, CPU_TOKENS) if device == "cpu" else budget
    for alike in by_length([row.suffix * len(row.prompts) for row in rows], within):
        for part in by_length([rows[number].tokens for number in alike], budget):
            yield [alike[place] for place in part]


@dataclass(frozen=True)
class _Suffixes:
    """Rows from the subject's last token on: all that a delta there can change.

    `hidden` [rows, length, width] leaves the edited block, whose FFN has `written` [rows, width] at the subject's last
    token; `past` holds what attention needs of the tokens before, in the blocks from `above` on, which alone are run;
    `next` [rows, length, width] is what the FFN of the first of them gives, where a delta changes no more of it than at
    the subject; `edit` [rows] is each row's edit, and `places` are where target tokens are predicted, if any are.
    """

    batch: Batch
    hidden: Tensor
    written: Tensor
    past: KeysValues
    next: Tensor | None
    edit: Tensor
    places: Places | None
    above: int

    def select(self, rows: Tensor) -> _Suffixes:
        batch = self.batch.select(rows)
        return _Suffixes(batch, self.hidden[rows], self.written[rows],
                         [(k, v) if number < self.above else (k[rows], v[rows])
                          for number, (k, v) in enumerate(self.past)],
                         None if self.next is None else self.next[rows], self.edit[rows],
                         self.places and Places.of(batch), self.above)


class _Optimisation:
    """Deltas of one batch of edits. Rows are all prompts of all edits; the essence rows, of one edit each and one token
    behind their past, are run apart, where nothing pads them."""

    def __init__(self, model: LanguageModel, edits: Sequence[_Rows], layer: int, config: ValueConfig,
                 anchor: str) -> None:
        self.model, self.layer, self.config = model, layer, config
        self.edits, self.contexts = len(edits), len(edits[0].prompts)
        device = model.device
        numbers = torch.arange(self.edits, device=device)
        subject = torch.tensor([i for row in edits for i in row.subjects], device=device)
        self._read_prompts(model.collate([prompt for row in edits for prompt in row.prompts]),
                           numbers.repeat_interleave(self.contexts), subject, anchor)
        last = torch.tensor([len(row.essence) - 1 for row in edits], device=device)
        self._read_essences(model.collate([row.essence for row in edits]), numbers, last)

    @torch.no_grad()
    def _read_prompts(self, batch: Batch, edit: Tensor, subject: Tensor, anchor: str) -> None:
        """Runs the prompts once and keeps what the loop starts from."""
        model, block, down = self.model, self.model.block_path(self.layer), self.model.down_path(self.layer)
        # In a parallel block no FFN reads of other positions than its own; the last one is spared most of them anyway.
        after = [model.ffn_path(self.layer + 1)] if model.parallel and self.layer + 2 < model.depth else []
        with capture_inputs(model, [down]) as inputs, capture_outputs(model, [block, down, anchor, *after]) as outputs:
            _, cache = model.states_and_cache(batch)
        rows = torch.arange(len(subject), device=subject.device)

        def at_subject(states: Tensor) -> Tensor:
            return states[rows, subject].float().reshape(self.edits, self.contexts, -1)

        self.keys, self.values = at_subject(inputs[down]), at_subject(outputs[down])
        self.anchor = at_subject(outputs[anchor])[:, 0]
        self.rows = self._suffixes(batch, subject, outputs[block], outputs[down], cache, edit, *map(outputs.get, after))

    @torch.no_grad()
    def _read_essences(self, batch: Batch, edit: Tensor, last: Tensor) -> None:
        """Likewise the essence rows, and what the model says after them, p(· | s)."""
        model, block, down = self.model, self.model.block_path(self.layer), self.model.down_path(self.layer)
        with capture_outputs(model, [block, down]) as outputs:
            states, cache = model.states_and_cache(batch)
        self.base = model.head(states[edit, last]).log_softmax(-1)
        self.essences = self._suffixes(batch, last, outputs[block], outputs[down], cache, edit)

    def _suffixes(self, batch: Batch, subject: Tensor, hidden: Tensor, written: Tensor, cache: KeysValues,
                  edit: Tensor, after: Tensor | None = None) -> _Suffixes:
        rows = torch.arange(len(subject), device=subject.device)
        suffix, taken = batch.suffix(subject)
        before = int(subject.max())
        # Of blocks that are not run the length alone is needed; copies of the others, so that the rest can go.
        past = [(keys[:1, :, :before].clone(), values[:1, :, :before].clone()) if number <= self.layer else
                (keys[:, :, :before].clone(), values[:, :, :before].clone())
                for number, (keys, values) in enumerate(cache)]
        return _Suffixes(suffix, hidden[rows[:, None], taken], written[rows, subject].float(), past,
                         None if after is None else after[rows[:, None], taken], edit,
                         Places.of(suffix) if len(suffix.target) else None, self.layer + 1)

    def run(self) -> Values:
        """Adam on all deltas at once; an edit whose loss is low enough stops moving and leaves the batch."""
        config, norms = self.config, self.anchor.norm(dim=1)
        delta = nn.Parameter(torch.zeros_like(self.anchor))
        optimizer = torch.optim.Adam([delta], lr=config.lr)
        loss = torch.full((self.edits,), torch.inf, device=delta.device)
        steps = torch.zeros(self.edits, dtype=torch.long, device=delta.device)
        active = torch.ones(self.edits, dtype=torch.bool, device=delta.device)
        rows, essences = self.rows, self.essences
        for step in range(config.steps):
            current = self._loss(rows, essences, delta, norms)
            loss = torch.where(active, current.detach(), loss)
            done = active & (loss < config.stop_loss)
            if done.any():
                active = active & ~done
                rows, essences = (of.select(active[of.edit].nonzero().flatten()) for of in (rows, essences))
            # As in the published code, the last step only evaluates.
            if step == config.steps - 1 or not active.any():
                break
            optimizer.zero_grad()
            current[active].sum().backward()
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

    def _loss(self, rows: _Suffixes, essences: _Suffixes, delta: Tensor, norms: Tensor) -> Tensor:
        """L(δ) of every edit [edits]; only that of edits with rows here means anything."""
        model, config, batch = self.model, self.config, rows.batch
        # 1/N Σ_j 1/T Σ_t -log p_δ(o_t | context_j p, o_<t)
        tokens = torch.bincount(batch.row, minlength=len(rows.edit))[batch.row]
        share = model.target_nll(self._states(rows, delta), batch) / (tokens * self.contexts)
        nll = share.new_zeros(self.edits).index_add(0, rows.edit[batch.row], share)

        # KL(p_δ(· | s) ‖ p(· | s)), right after the subject
        edited = model.head(self._states(essences, delta)[:, 0]).log_softmax(-1)
        divergence = nn.functional.kl_div(self.base[essences.edit], edited, log_target=True, reduction="none").sum(-1)
        drift = delta.new_zeros(self.edits).index_add(0, essences.edit, divergence)

        length: Tensor = delta.norm(dim=1)
        return nll + config.kl * drift + config.weight_decay * length / norms**2

    def _states(self, rows: _Suffixes, delta: Tensor) -> Tensor:
        """Final states [rows, length, width] where targets are predicted, of rows without any everywhere."""
        # h <- h + δ at the subject's last token, where every row begins
        hidden = rows.hidden.float()
        first = self.model.with_more(self.layer, hidden[:, 0], rows.written, delta[rows.edit])
        moved = torch.cat([first[:, None], hidden[:, 1:]], 1).to(rows.hidden.dtype)
        with only_targets(self.model, rows.places), only_first(self.model, rows.above, rows.next):
            return self.model.run_from(moved, rows.batch, BlockRef("decoder", self.layer + 1), rows.past)
