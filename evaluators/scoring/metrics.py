"""Turns observations into scores. A metric's name says how it is measured; `VERSION` grows when a result changes.

`.token` is teacher-forced token accuracy (what the paper and EasyEdit report), `.exact` that all target tokens are
right, `.generation` that what the model writes freely is the target; `.success` and `.magnitude` are COUNTERFACT's
(Meng et al. 2022): the answer against its rival, by mean log-probability per token. Locality's `.token`, `.exact` and
`.generation` compare with the unedited model's own answers, `.kl` with its distribution. `newest.` is a stream's edit
right after it was made.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from evaluators.cases import Case, Chain, Probe, Role, ask
from evaluators.scoring.answers import same_answer

if TYPE_CHECKING:  # scoring loads torch, and reports need only the names below
    from evaluators.scoring.observe import Observation, Outputs

VERSION = 1
METRICS = (
    *(f"{what}.{how}" for what in ("reliability", "generality")
      for how in ("token", "exact", "generation", "success", "magnitude")),
    *(f"locality.{how}" for how in ("token", "exact", "generation", "success", "magnitude", "kl")),
    *(f"locality.{where}.{how}" for where in ("attributes", "distracting", "unrelated")
      for how in ("token", "exact", "kl")),
    *(f"{what}.{how}" for what in ("portability", "portability.all", "portability.inverse", "portability.subject")
      for how in ("token", "exact", "generation")),
    *(f"newest.{what}.{how}" for what in ("reliability", "generality")
      for how in ("token", "exact", "success", "magnitude")),
    "fluency", "consistency", "perplexity", "edit.diverged",
)
LOCALITY = {"neighbourhood": "locality", "attributes": "locality.attributes",
            "distracting": "locality.distracting", "unrelated": "locality.unrelated"}
KNOWN_RANK = 10  # a link is known when its answer's first token is among this many most probable (paper, appendix B.1)


@dataclass(frozen=True)
class Score:
    """One case's value of one metric; `subject` is the cluster for confidence intervals, `texts` what was written."""

    case_id: str
    subject: str
    metric: str
    value: float
    texts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class EditedFacts:
    """What the edits on a model are about, so that locality leaves out what was itself edited."""

    facts: frozenset[tuple[str, str]]
    prompts: frozenset[str]

    @staticmethod
    def of(cases: Sequence[Case]) -> EditedFacts:
        return EditedFacts(frozenset((case.subject, case.relation) for case in cases if case.relation is not None),
                           frozenset(case.prompt for case in cases))

    @cached_property
    def _subjects(self) -> dict[str, re.Pattern[str]]:
        """By relation, a pattern that finds any edited subject as a word."""
        subjects = defaultdict(list)
        for subject, relation in sorted(self.facts):
            subjects[relation].append(re.escape(subject))
        return {relation: re.compile(rf"(?<!\w)(?:{'|'.join(names)})(?!\w)") for relation, names in subjects.items()}

    def cover(self, probe: Probe) -> bool:
        """Whether a probe asks for an edited fact. One without a subject does when its prompt names an edited one."""
        if probe.prompt in self.prompts:
            return True
        if probe.relation is None:
            return False
        if probe.subject is not None:
            return (probe.subject, probe.relation) in self.facts
        pattern = self._subjects.get(probe.relation)
        return pattern is not None and pattern.search(probe.prompt) is not None


def score(cases: Sequence[Case], edited: Sequence[Observation], baseline: Sequence[Observation],
          edits: EditedFacts) -> list[Score]:
    """All metrics of all cases, each the mean over the case's probes; a case without such probes has no such score.

    The observations are the cases' own, in the same order; `edits` is what was edited when `edited` was observed.
    Outputs that are not finite count as wrong (magnitudes: 0).
    """
    scores = []
    for case, after, before in zip(cases, edited, baseline, strict=True):
        if not case.id == after.case_id == before.case_id:
            raise ValueError(f"observations of '{after.case_id}' and '{before.case_id}' given for case '{case.id}'")
        values: dict[str, list[_Value]] = defaultdict(list)
        for each in _values(case, after, before, edits):
            values[each.metric].append(each)
        scores += [Score(case.id, case.subject, metric, fmean(each.value for each in values[metric]),
                         _texts(values[metric])) for metric in METRICS if metric in values]
    return scores


class _Value(NamedTuple):
    """What one probe contributes to a metric."""

    metric: str
    value: float
    text: str | None = None


def _texts(values: Sequence[_Value]) -> tuple[str, ...] | None:
    texts = tuple(each.text for each in values if each.text is not None)
    return texts or None


def _values(case: Case, after: Observation, before: Observation, edits: EditedFacts) -> Iterator[_Value]:
    targets = {key: target for key, _, target in ask(case)}
    for key, outputs in after.outputs.items():
        if key.which == "rival" or key.role == "link":
            continue
        rival = after.get(key.role, key.number, "rival")
        if key.role == "portability":
            for metric in _portability(case.portability[key.number], before.get("link", key.number)):
                yield from _accuracy(metric, outputs, targets[key])
        elif key.role in LOCALITY:
            if not edits.cover(_probes(case, key.role)[key.number]):
                yield from _agreement(LOCALITY[key.role], outputs, before.outputs[key])
                yield from _contest(LOCALITY[key.role], outputs, rival)
        else:
            metric = "reliability" if key.role == "rewrite" else "generality"
            yield from _accuracy(metric, outputs, targets[key])
            yield from _contest(metric, outputs, rival)


def _probes(case: Case, role: Role) -> Sequence[Probe]:
    """Those of a locality role; a distracting probe asks for what its neighbourhood probe does."""
    probes: dict[str, Sequence[Probe]] = {"neighbourhood": case.neighbourhood, "distracting": case.neighbourhood,
                                          "attributes": case.attributes, "unrelated": case.unrelated}
    return probes[role]


def _portability(chain: Chain, link: Outputs | None) -> Iterator[str]:
    """The metrics that a chain counts for."""
    if chain.kind != "hop":
        yield f"portability.{chain.kind}"
        return
    yield "portability.all"
    if link is not None and link.rank_first < KNOWN_RANK:
        yield "portability"


def _accuracy(metric: str, outputs: Outputs, target: str) -> Iterator[_Value]:
    yield _Value(f"{metric}.token", outputs.token)
    yield _Value(f"{metric}.exact", outputs.exact)
    if outputs.text is not None:
        yield _Value(f"{metric}.generation", float(same_answer(outputs.text, target)), outputs.text)


def _agreement(metric: str, after: Outputs, before: Outputs) -> Iterator[_Value]:
    share = after.agreement(before)
    yield _Value(f"{metric}.token", share)
    yield _Value(f"{metric}.exact", float(share == 1))
    if after.kl is not None:
        yield _Value(f"{metric}.kl", after.kl)
    if after.text is not None and before.text is not None:
        yield _Value(f"{metric}.generation", float(same_answer(after.text, before.text)), after.text)


def _contest(metric: str, answer: Outputs, rival: Outputs | None) -> Iterator[_Value]:
    if rival is None:
        return
    sound = answer.is_finite and rival.is_finite
    yield _Value(f"{metric}.success", float(sound and answer.mean_logprob > rival.mean_logprob))
    yield _Value(f"{metric}.magnitude", answer.probability - rival.probability if sound else 0.0)
