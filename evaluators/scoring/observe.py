"""Asks a model every probe of many cases, each case under its own patch, in as few forward passes as possible."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from editors.core.errors import CaseError
from editors.core.models.batches import Encoded, Padding, by_length
from editors.core.models.model import LanguageModel
from editors.core.patches.overlay import UNPATCHED, overlay
from editors.core.patches.patch import Patch, Route
from evaluators.cases import ROLES, Case, ProbeKey, Role, Which, ask
from evaluators.scoring.resuming import resume

NO_TOKEN = -1  # what a model "predicts" where its logits are not finite
BATCH_TOKENS = {"cpu": 1024, "cuda": 32768}  # a third faster on CPUs than 4096: activations stay in the cache
PASS = 16  # padding of a 16th of a pass's tokens takes as long as one pass more


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model does with one target teacher-forced after one prompt.

    `predicted` are the argmax tokens at the target's positions (`NO_TOKEN` where logits are not finite; of equal ones,
    which half precision may make of close ones, whichever `argmax` gives), `logprob` is
    the sum over target tokens in nats (-inf where not finite), `rank_first` how many tokens are more probable than the
    first target token. Where they were asked for, `kl` is the mean over target tokens of KL(unedited model || this one)
    in nats, and `text` what the model writes when nothing is forced.
    """

    predicted: tuple[int, ...]
    target: tuple[int, ...]
    logprob: float
    rank_first: int
    kl: float | None = None
    text: str | None = None

    @property
    def token(self) -> float:
        """Share of target tokens that are the argmax."""
        return _share_equal(self.predicted, self.target)

    @property
    def exact(self) -> float:
        """1 where every target token is the argmax (greedy decoding yields the target), else 0."""
        return float(self.predicted == self.target)

    @property
    def mean_logprob(self) -> float:
        return self.logprob / len(self.target)

    @property
    def probability(self) -> float:
        """exp of the mean log-probability per token (Meng et al. 2022); 0 where not finite."""
        return math.exp(self.mean_logprob)

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.logprob)

    def agreement(self, other: Outputs) -> float:
        """Share of positions at which both predict the same token; `NO_TOKEN` agrees with nothing."""
        return _share_equal(self.predicted, other.predicted)


def _share_equal(left: Sequence[int], right: Sequence[int]) -> float:
    return sum(a == b != NO_TOKEN for a, b in zip(left, right, strict=True)) / len(left)


@dataclass(frozen=True)
class Observation:
    """All outputs of one case."""

    case_id: str
    outputs: Mapping[ProbeKey, Outputs]

    def get(self, role: Role, number: int = 0, which: Which = "answer") -> Outputs | None:
        return self.outputs.get(ProbeKey(role, number, which))


def questions(model: LanguageModel, case: Case, roles: Collection[Role] = ROLES) -> dict[ProbeKey, Encoded]:
    """Every prompt and target of a case as tokens. Raises `CaseError` where one cannot be encoded, naming it."""
    encoded = {}
    for key, prompt, target in ask(case):
        if key.role in roles:
            try:
                encoded[key] = model.encode(prompt, target)
            except CaseError as error:
                raise CaseError(f"{key.role} {key.number}: {error}") from error
            if not encoded[key].target:
                raise CaseError(f"{key.role} {key.number}: the target is empty")
    return encoded


class Row(NamedTuple):
    """A question under the patch of that number."""

    patch: int
    encoded: Encoded

    @property
    def read(self) -> tuple[int, ...]:
        """The target tokens the model reads: the last one is only predicted."""
        return self.encoded.target[:-1]


def observe(model: LanguageModel, cases: Sequence[Case], patches: Sequence[Patch], rows: Sequence[int], *,
            batch_tokens: int | None = None, padding: Padding = "right", roles: Collection[Role] = ROLES,
            kl_roles: Collection[Role] = (), before: Mapping[str, Observation] | None = None) -> list[Observation]:
    """Answers the probes of case i with `patches[rows[i]]` on (`rows[i]` = -1: unedited), in the order of `cases`.

    `kl_roles` are those whose answers are compared with the unedited model's, which takes a second forward pass.
    `before` are the unedited model's observations of the same questions, by case id, where they are known: what a patch
    routes nowhere is answered as there. `batch_tokens` and the errors are those of `answer`, which says how it is done:
    `questions` tells which case it was.
    """
    asked = [{key: Row(row if row != UNPATCHED and patches[row] else UNPATCHED, encoded)
              for key, encoded in questions(model, case, roles).items()}
             for case, row in zip(cases, rows, strict=True)]
    known = _unrouted(model, cases, asked, patches, before or {})
    compared = {row for case in asked for key, row in case.items() if key.role in kl_roles and key.which == "answer"}
    answered = known | answer(model, {row for case in asked for row in case.values() if row not in known}, patches,
                              compared, batch_tokens=batch_tokens, padding=padding)
    return [Observation(case.id, {key: answered[row] for key, row in keys.items()})
            for case, keys in zip(cases, asked, strict=True)]


def _unrouted(model: LanguageModel, cases: Sequence[Case], asked: Sequence[Mapping[ProbeKey, Row]],
              patches: Sequence[Patch], before: Mapping[str, Observation]) -> dict[Row, Outputs]:
    """The outputs of questions under patches that do nothing but route, and do not route these."""
    routing = {number for number, patch in enumerate(patches)
               if patch and all(isinstance(term, Route) for term in patch.terms)}
    known = {row: replace(outputs, text=None) for case, keys in zip(cases, asked, strict=True) if case.id in before
             for key, row in keys.items() if row.patch in routing
             and (outputs := before[case.id].outputs.get(key)) is not None}
    if not known:
        return known
    rows = list(known)
    with overlay(model, patches, [row.patch for row in rows]):
        assert model.router is not None
        for number, _, _ in model.router.answered_elsewhere([row.encoded for row in rows]):
            del known[rows[number]]
    return known


def answer(model: LanguageModel, rows: Collection[Row], patches: Sequence[Patch], compared: Collection[Row] = (), *,
           batch_tokens: int | None = None, padding: Padding = "right") -> dict[Row, Outputs]:
    """The outputs of every question; of those `compared`, with `kl`.

    Equal questions under one patch are computed once, and a question whose tokens begin another's is read off it.
    `batch_tokens` bounds rows x longest row of one forward pass (default: by device, and what it has room for). Where
    the model has a place for `kept` states, what enters the lowest block that a patch changes is kept there.
    """
    guests = _guests(rows)
    if model.kept is not None:
        model.kept.begin(sum(len(row.encoded) for row in guests))
    answered: dict[Row, Outputs] = {}
    budget = batch_tokens or _budget(model, guests)
    # Rows of similar length together, and in each group those of one patch side by side.
    ordered = sorted(guests, key=lambda row: (len(row.encoded), row.patch, row.encoded.prompt, row.encoded.target))
    for group in by_length([len(row.encoded) for row in ordered], budget, budget / PASS):
        hosts = sorted((ordered[number] for number in group), key=lambda row: row.patch)
        answered |= _answer(model, patches, hosts, guests, compared, padding)
    return answered


def _budget(model: LanguageModel, rows: Collection[Row]) -> int:
    """Tokens of a forward pass: as many as suit the device, where there is room for them."""
    tokens = sum(len(row.encoded) for row in rows)
    targets = sum(len(row.encoded.target) for row in rows)
    most = BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cpu"])
    return model.at_once(most, model.bytes.asked(targets / max(tokens, 1)))


def _guests(rows: Collection[Row]) -> dict[Row, list[Row]]:
    """Rows to compute, each with all rows that it answers: the same patch and prompt, and its tokens begin theirs."""
    guests: dict[Row, list[Row]] = defaultdict(list)
    host = None
    ordered = sorted(rows, key=lambda row: (row.patch, row.encoded.prompt, row.read, row.encoded.target), reverse=True)
    for row in ordered:
        if (host is None or (host.patch, host.encoded.prompt) != (row.patch, row.encoded.prompt)
                or host.read[: len(row.read)] != row.read):
            host = row
        guests[host].append(row)
    return guests


@torch.no_grad()
def _answer(model: LanguageModel, patches: Sequence[Patch], hosts: Sequence[Row],
            guests: Mapping[Row, Sequence[Row]], compared: Collection[Row], padding: Padding) -> dict[Row, Outputs]:
    """One forward pass over `hosts`; the outputs of all their guests."""
    on = [host.patch for host in hosts]
    forward = resume(model, [host.encoded for host in hosts], padding, patches, on)
    logits = forward(on)
    asked: list[tuple[Row, int]] = []  # each guest, and which of the logits predicts its first target token
    start = 0
    for host in hosts:
        asked += [(guest, start) for guest in guests[host]]
        start += len(host.encoded.target)

    total = logits.logsumexp(-1)
    finite = total.isfinite()
    predicted = torch.where(finite, logits.argmax(-1), NO_TOKEN).tolist()
    places, tokens = _pairs(((at + k, token) for row, at in asked for k, token in enumerate(row.encoded.target)), model)
    logprobs = torch.where(finite[places], logits[places, tokens] - total[places], -math.inf).tolist()
    places, tokens = _pairs(((at, row.encoded.target[0]) for row, at in asked), model)
    above = (logits[places] > logits[places, tokens].unsqueeze(1)).sum(-1)
    ranks = torch.where(finite[places], above, logits.shape[-1]).tolist()
    kl = _divergence(hosts, logits, forward) if any(row in compared for row, _ in asked) else []

    outputs = {}
    end = 0
    for (row, at), rank in zip(asked, ranks, strict=True):
        begin, end = end, end + len(row.encoded.target)
        own = slice(at, at + end - begin)
        outputs[row] = Outputs(tuple(predicted[own]), row.encoded.target, sum(logprobs[begin:end]), rank,
                               fmean(kl[own]) if row in compared else None)
    return outputs


def _divergence(hosts: Sequence[Row], logits: Tensor, forward: Callable[[Sequence[int]], Tensor]) -> list[float]:
    """KL(unedited || edited) in nats at every target token; 0 for hosts without a patch, infinite where the edited
    logits are not finite."""
    if all(host.patch == UNPATCHED for host in hosts):
        return [0.0] * len(logits)
    before = forward([UNPATCHED] * len(hosts)).log_softmax(-1)
    kl = (before.exp() * (before - logits.log_softmax(-1))).sum(-1).clamp(min=0)
    edited = [host.patch != UNPATCHED for host in hosts for _ in host.encoded.target]
    return [value if patched else 0.0
            for value, patched in zip(torch.nan_to_num(kl, nan=math.inf).tolist(), edited, strict=True)]


def _pairs(pairs: Iterable[tuple[int, int]], model: LanguageModel) -> tuple[Tensor, ...]:
    return torch.tensor(list(pairs), device=model.device).unbind(1)


TABLE = pa.schema([("case_id", pa.string()), ("role", pa.string()), ("number", pa.int32()), ("which", pa.string()),
                   ("predicted", pa.list_(pa.int32())), ("target", pa.list_(pa.int32())),
                   ("logprob", pa.float64()), ("rank_first", pa.int32()), ("kl", pa.float64()),
                   ("text", pa.string())])
_FIELDS = tuple(field.name for field in fields(Outputs))


def to_table(observations: Sequence[Observation]) -> pa.Table:
    """One row per output, in order; `from_table` gives the observations back exactly."""
    return pa.Table.from_pylist(
        [{"case_id": observation.case_id, **key._asdict(),
          **{field: getattr(outputs, field) for field in _FIELDS}}
         for observation in observations for key, outputs in observation.outputs.items()], schema=TABLE)


def from_table(table: pa.Table) -> list[Observation]:
    """Observations from a table made by `to_table`."""
    cases: dict[str, dict[ProbeKey, Outputs]] = {}
    for row in table.to_pylist():
        cases.setdefault(row["case_id"], {})[ProbeKey(row["role"], row["number"], row["which"])] = Outputs(
            tuple(row["predicted"]), tuple(row["target"]), row["logprob"], row["rank_first"], row["kl"], row["text"])
    return [Observation(case_id, outputs) for case_id, outputs in cases.items()]
