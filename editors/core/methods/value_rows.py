"""Token rows of the value optimiser: the prompts of each edit in their contexts, which of them are run together, and
what is left of them once the blocks below have been run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile

from torch import Tensor

from editors.core.memory import Bytes
from editors.core.models.batches import Batch, Encoded, by_length
from editors.core.models.model import KeysValues, LanguageModel
from editors.core.models.sparing import Places
from editors.core.requests import EditRequest

CPU_TOKENS = 256  # of one pass on a CPU, enough for its products: rows of more are less alike


def in_context(request: EditRequest, context: str) -> EditRequest:
    """The request with a text before its prompt."""
    assert request.subject_start is not None
    return replace(request, prompt=context + request.prompt, subject_start=len(context) + request.subject_start)


def row_bytes(of: Bytes, layer: int, tokens: int, suffix: int, targets: int) -> float:
    """Of a row of so many tokens, of which the loop runs the `suffix` through the blocks above `layer`."""
    above = of.shape.depth - layer - 1
    # keys and values of the tokens before, and a copy of them beside the suffix's
    loop = 2 * (tokens - suffix) * of.cached(above) + suffix * of.kept(above) + targets * of.logits
    return max(loop, tokens * (of.cached(of.shape.depth) + of.passing))  # the loop, or the run before it


@dataclass(frozen=True)
class Rows:
    """One request as token rows: the prompt in every context, the position of the subject's last token in each, and
    "{subject} is a" up to its subject."""

    prompts: list[Encoded]
    subjects: list[int]
    essence: Encoded

    @classmethod
    def encode(cls, model: LanguageModel, request: EditRequest, contexts: Sequence[str]) -> Rows:
        within = [in_context(request, context) for context in contexts]
        essence = EditRequest(f"{request.subject} is a", request.subject, request.target)
        # The distribution is compared right after the subject, so nothing behind it needs to be read. It is asked for
        # there as if a token should follow, of which only the place counts.
        upto = Encoded(model.encode(essence.prompt).prompt[: model.subject_index(essence) + 1], (0,))
        return cls([model.encode(r.prompt, r.target) for r in within], [model.subject_index(r) for r in within], upto)

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
        rows = (row_bytes(of, layer, len(row), len(row) - start, len(row.target))
                for row, start in zip(self.prompts, self.subjects, strict=True))
        return sum(rows) + row_bytes(of, layer, len(self.essence) - 1 + self.suffix, self.suffix, 1)


def groups(rows: Sequence[Rows], budget: int, device: str) -> Iterator[list[list[int]]]:
    """Numbers of requests for each optimisation, in parts that are run together: of requests whose suffixes, which the
    loop runs, are about as long, short ones first. All whole rows, which are run once, are no more tokens than the
    budget, unless they are of one request."""
    within = min(budget, CPU_TOKENS) if device == "cpu" else budget
    parts: list[list[int]] = []
    room = budget
    for alike in by_length([row.suffix * len(row.prompts) for row in rows], within):
        for places in by_length([rows[number].tokens for number in alike], budget):
            tokens = rows[alike[places[-1]]].tokens * len(places)
            if parts and tokens > room:
                yield parts
                parts, room = [], budget
            parts.append([alike[place] for place in places])
            room -= tokens
    if parts:
        yield parts


def common(edits: Sequence[Rows]) -> list[int]:
    """With how many tokens in common, before any subject's last, the prompts of several edits begin, by context."""
    if len(edits) < 2:
        return [0] * sum(len(one.prompts) for one in edits)
    before = [[one.prompts[context].prompt[: one.subjects[context]] for one in edits]
              for context in range(len(edits[0].prompts))]
    return [sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False)))
            for rows in before]


@dataclass(frozen=True)
class Suffixes:
    """Rows from the subject's last token on: all that a delta there can change.

    `hidden` [rows, length, width] leaves the edited block, whose FFN has `written` [rows, width] at the subject's last
    token; `past` holds what attention needs of the tokens before, in the blocks from `above` on, which alone are run;
    `next` [rows, length, width] is what the FFN of the first of them gives, where a delta changes no more of it than at
    the subject; `edit` [rows] is each row's edit, `essence` [rows] tells essence rows, and `places` are where targets
    are predicted.
    """

    batch: Batch
    hidden: Tensor
    written: Tensor
    past: KeysValues
    next: Tensor | None
    edit: Tensor
    essence: Tensor
    places: Places
    above: int

    @cached_property
    def asked(self) -> Tensor:
        """Which of the batch's targets are tokens of an edit's target."""
        return (~self.essence[self.batch.row]).nonzero().flatten()

    @cached_property
    def compared(self) -> Tensor:
        """Which of them stand for all that may follow an essence row."""
        return self.essence[self.batch.row].nonzero().flatten()

    def of(self, edits: Tensor) -> Suffixes:
        """The rows of these edits, of all [edits]; itself where they are all there are."""
        chosen = edits[self.edit]
        return self if chosen.all() else self._select(chosen.nonzero().flatten())

    def _select(self, rows: Tensor) -> Suffixes:
        batch = self.batch.select(rows)
        return Suffixes(batch, self.hidden[rows], self.written[rows],
                        [(k, v) if number < self.above else (k[rows], v[rows])
                         for number, (k, v) in enumerate(self.past)],
                        None if self.next is None else self.next[rows], self.edit[rows], self.essence[rows],
                        Places.of(batch), self.above)
