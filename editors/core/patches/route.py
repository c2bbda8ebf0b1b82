"""Answers from a second model where a patch says so: `Route` terms at work (SERAC; Mitchell et al. 2022b,
section 3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from editors.core.errors import InputError
from editors.core.models.batches import Batch, Encoded
from editors.core.models.model import LanguageModel
from editors.core.patches.patch import Patch, Route

THRESHOLD = 0.5  # of the scope score: a distance of sqrt(ln 2)
CACHED = 50_000  # embeddings a side keeps
AT_ONCE = 256  # prompts the classifier reads in one pass
ABSENT = -1e4  # the logit of tokens that the side model does not have

Tokens = tuple[int, ...]
Entry = tuple[str, str]


@dataclass(frozen=True)
class Classifier:
    """The scope classifier g: an encoder's state of its first token. `read` makes what it reads of a prompt's ids."""

    module: nn.Module
    read: Callable[[Tokens], Sequence[int]]

    def __call__(self, prompts: Sequence[Tokens]) -> Tensor:
        """CLS vectors [prompts, width] in fp32."""
        rows = [torch.tensor(self.read(prompt)) for prompt in prompts]
        device = next(self.module.parameters()).device
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()
        states: Tensor = self.module(input_ids=ids, attention_mask=mask).last_hidden_state
        return states[:, 0].float()


class SideModel:
    """A counterfactual model c and its scope classifier g. `model` reads the edited model's tokens.

    The classifier sees the question of a memory entry, and with `answered` its answer behind it.
    """

    def __init__(self, model: LanguageModel, classifier: Classifier, answered: bool = False) -> None:
        self.model, self.classifier, self.answered = model, classifier, answered
        self.encode = cache(model.encode)
        self._as_next = cache(self._after_a_space)
        self._embedded: dict[Tokens, Tensor] = {}

    @torch.no_grad()
    def embed(self, prompts: Sequence[Tokens]) -> Tensor:
        """CLS vectors [prompts, width]; each prompt is read once, and remembered."""
        new = dict.fromkeys(prompt for prompt in prompts if prompt not in self._embedded)
        if len(self._embedded) + len(new) > CACHED:
            self._embedded, new = {}, dict.fromkeys(prompts)
        ordered = sorted(new, key=len)
        for start in range(0, len(ordered), AT_ONCE):
            some = ordered[start: start + AT_ONCE]
            self._embedded.update(zip(some, self.classifier(some), strict=True))
        return torch.stack([self._embedded[prompt] for prompt in prompts])

    def find(self, prompts: Sequence[Tokens], memory: Sequence[Entry]) -> list[int | None]:
        """For each prompt the entry in whose scope it lies: the nearest, of equals the latest. The classifier never
        sees a prompt's answer."""
        vectors = self.embed([*prompts, *map(self.seen, memory)])
        # score = exp(-‖g(prompt) - g(entry)‖²)
        distances = torch.cdist(vectors[: len(prompts)], vectors[len(prompts):],
                                compute_mode="donot_use_mm_for_euclid_dist")  # the other is inexact near zero
        scores = (-distances.square()).exp()
        best, reverse = scores.flip(1).max(1)
        return [len(memory) - 1 - back if score > THRESHOLD else None
                for score, back in zip(best.tolist(), reverse.tolist(), strict=True)]

    def seen(self, entry: Entry) -> Tokens:
        """What the classifier reads of a memory entry; behind an encoder the end token stays last."""
        if not self.answered:
            return self.encode(entry[0]).prompt
        known = self.encode(*entry)
        question = len(known.prompt) - self.model.has_encoder
        return (*known.prompt[:question], *known.target, *known.prompt[question:])

    def in_context(self, entry: Entry, question: Encoded) -> Encoded:
        """The question behind a memory entry's prompt and target, of which the oldest tokens go where it is too
        long."""
        known = self.encode(*entry)
        if self.model.has_encoder:
            prompt = (*known.prompt[:-1], *known.target, *question.prompt)
        else:
            prompt = (*known.prompt, *known.target, *self._as_next(question.prompt))
        row = Encoded(prompt, question.target)
        surplus = 0 if self.model.max_length is None else max(len(row) - self.model.max_length, 0)
        start = len(self.model.start)
        return Encoded(row.prompt[:start] + row.prompt[start + surplus:], row.target)

    def _after_a_space(self, prompt: Tokens) -> Tokens:
        """A text's ids as they are in the middle of a text, where byte-level tokens begin with the space before."""
        return self.model.tokenise_next(self.model.text_of(prompt))

    def target_logits(self, rows: Sequence[Encoded], vocabulary: int) -> Tensor:
        """c's logits [targets, vocabulary] in fp32; tokens it lacks get a logit that is never the highest."""
        logits = self.model.target_logits(self.model.collate(rows))[:, :vocabulary]
        return nn.functional.pad(logits, (0, vocabulary - logits.shape[1]), value=ABSENT)


class _Hit(NamedTuple):
    """A row a side answers: what it reads, and which of the batch's targets those are."""

    side: SideModel
    row: Encoded
    places: list[int]


class MemoryRouter:
    """Answers a model's batches: rows in the scope of a memory entry by its side, the others by the model.

    `routes[rows[i]]` are the terms of row i (-1: none); without `rows`, `routes[0]` are those of every row. Memories
    on one side are one memory with `outer`'s; of several sides, the innermost that claims a row has it.
    """

    def __init__(self, model: LanguageModel, routes: Sequence[Sequence[Route]], rows: Sequence[int] | None,
                 outer: MemoryRouter | None) -> None:
        self.model, self.routes, self.rows, self.outer = model, routes, rows, outer
        for route in {route.side: route for terms in routes for route in terms}.values():
            if route.side not in model.sides:
                raise InputError(f"the patch answers by side model '{route.side}', which '{model.name}' does not know "
                                 "yet; make the editor with the artefact of that digest first: "
                                 "SERAC(model, config, Resources(artefact=Artefact.load(...)))")

    def target_logits(self, batch: Batch) -> Tensor:
        """Logits [targets, vocabulary] in fp32. The model is not run where every row is the side's."""
        hits = self._hits(_questions(batch), len(batch.input_ids))
        if not hits:
            return self.model.own_target_logits(batch)
        vocabulary = self.model.vocabulary
        if sum(len(hit.places) for hit in hits) < len(batch.row):
            logits = self.model.own_target_logits(batch)
        else:
            logits = torch.empty(len(batch.row), vocabulary, device=batch.row.device)
        for side in dict.fromkeys(hit.side for hit in hits):
            own = [hit for hit in hits if hit.side is side]
            places = torch.tensor([place for hit in own for place in hit.places], device=batch.row.device)
            logits = logits.index_copy(0, places, side.target_logits([hit.row for hit in own], vocabulary))
        return logits

    def answered_elsewhere(self, rows: Sequence[Encoded]) -> list[tuple[int, LanguageModel, Encoded]]:
        """Of a batch of prompts, those that sides answer: which row it is, the side model, and what that reads."""
        asked = {number: (row, [number]) for number, row in enumerate(rows)}
        return [(hit.places[0], hit.side.model, hit.row) for hit in self._hits(asked, len(rows))]

    def _hits(self, questions: dict[int, tuple[Encoded, list[int]]], count: int) -> list[_Hit]:
        """Those of the questions, by row of a batch of `count`, that sides answer."""
        terms = self._terms(count)
        asked = {row: question for row, question in questions.items() if terms[row]}
        prompts = [question.prompt for question, _ in asked.values()]
        for side in {self.model.sides[route.side] for row in asked for route in terms[row]}:
            side.embed(prompts)  # all in one pass, whatever memory each has
        hits = []
        for rows in _alike(terms, list(asked)):
            for side, memory in self._memories(terms[rows[0]]):
                found = side.find([asked[row][0].prompt for row in rows], memory)
                hits += [_Hit(side, side.in_context(memory[number], asked[row][0]), asked[row][1])
                         for row, number in zip(rows, found, strict=True) if number is not None]
                rows = [row for row, number in zip(rows, found, strict=True) if number is None]
                if not rows:
                    break
        return hits

    def _terms(self, count: int) -> list[tuple[Route, ...]]:
        """The terms of each of a batch's rows, outer ones first."""
        if self.rows is not None and len(self.rows) != count:
            raise ValueError(f"overlay has {len(self.rows)} rows, but the model got a batch of {count}")
        own = [self.routes[number] if number >= 0 else () for number in self.rows or [0] * count]
        outer = self.outer._terms(count) if self.outer else [()] * count
        return [(*below, *above) for below, above in zip(outer, own, strict=True)]

    def _memories(self, terms: Sequence[Route]) -> Iterator[tuple[SideModel, list[Entry]]]:
        """The memory on each side, the innermost side first."""
        for name in dict.fromkeys(term.side for term in reversed(terms)):
            yield self.model.sides[name], [entry for term in terms if term.side == name for entry in term.memory]


def _questions(batch: Batch) -> dict[int, tuple[Encoded, list[int]]]:
    """By row, what it asks as it was encoded, and which of the batch's targets are its own."""
    places = defaultdict(list)
    for place, row in enumerate(batch.row.tolist()):
        places[row].append(place)
    read = batch.source or batch
    ids, mask, targets = read.input_ids.tolist(), read.attention_mask.tolist(), batch.target.tolist()
    ends = [len(ids[0])] * len(ids) if batch.source else [last + 1 for last in batch.first_position.tolist()]
    return {row: (Encoded(tuple(token for token, real in zip(ids[row][:ends[row]], mask[row], strict=False) if real),
                          tuple(targets[place] for place in own)), own) for row, own in places.items()}


def _alike(terms: Sequence[tuple[Route, ...]], rows: Sequence[int]) -> list[list[int]]:
    """Rows that carry the same terms, together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        groups.setdefault(tuple(map(id, terms[row])), []).append(row)
    return list(groups.values())


@contextmanager
def routing(model: LanguageModel, patches: Sequence[Patch], rows: Sequence[int] | None) -> Iterator[None]:
    """Inside, the patches' `Route` terms take part in `model.target_logits`; the rest as for `overlay`. Raises
    `InputError` where the model does not know a term's side."""
    routes = [[term for term in patch.terms if isinstance(term, Route)] for patch in patches]
    if not any(routes):
        yield
        return
    outer = model.router
    assert outer is None or isinstance(outer, MemoryRouter)
    model.router = MemoryRouter(model, routes, rows, outer)
    try:
        yield
    finally:
        model.router = outer
