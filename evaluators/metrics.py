"""Turns observations into scores. A metric's name says how it is measured; `VERSION` grows when a result changes.

`.token` is teacher-forced token accuracy (what the paper and EasyEdit report), `.exact` that all target tokens are
right; `.success` and `.magnitude` are COUNTERFACT's (Meng et al. 2022): the answer against its rival, by mean
log-probability per token. Locality's `.token` and `.exact` compare with the unedited model's own predictions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

from evaluators.cases import Case, Probe

if TYPE_CHECKING:  # scoring loads torch, and reports need only the names below
    from evaluators.scoring import Observation, Outputs, Role

VERSION = 1
METRICS = (
    "reliability.token", "reliability.exact", "reliability.success", "reliability.magnitude",
    "generality.token", "generality.exact", "generality.success", "generality.magnitude",
    "locality.token", "locality.exact", "locality.success", "locality.magnitude",
    "locality.attributes.token", "locality.attributes.exact",
    "locality.unrelated.token", "locality.unrelated.exact",
    "portability.token", "portability.exact", "portability.all.token", "portability.all.exact",
    "edit.diverged",
)
KNOWN_RANK = 10  # a link is known when its answer's first token is among this many most probable (paper, appendix B.1)


@dataclass(frozen=True)
class Score:
    """One case's value of one metric; `subject` is the cluster for confidence intervals."""

    case_id: str
    subject: str
    metric: str
    value: float


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
        values: dict[str, list[float]] = defaultdict(list)
        for metric, value in _values(case, after, before, edits):
            values[metric].append(value)
        scores += [Score(case.id, case.subject, metric, fmean(values[metric]))
                   for metric in METRICS if metric in values]
    return scores


def _values(case: Case, after: Observation, before: Observation, edits: EditedFacts) -> Iterator[tuple[str, float]]:
    """(metric, value) of every probe."""
    locality: dict[Role, tuple[str, Sequence[Probe]]] = {
        "neighbourhood": ("locality", case.neighbourhood), "attributes": ("locality.attributes", case.attributes),
        "unrelated": ("locality.unrelated", case.unrelated)}
    for key, outputs in after.outputs.items():
        rival = after.get(key.role, key.number, "rival")
        if key.which == "rival" or key.role == "link":
            continue
        if key.role == "portability":
            yield from _accuracy("portability.all", outputs)
            link = before.get("link", key.number)
            if link is not None and link.rank_first < KNOWN_RANK:
                yield from _accuracy("portability", outputs)
        elif key.role in locality:
            metric, probes = locality[key.role]
            if not edits.cover(probes[key.number]):
                yield from _agreement(metric, outputs, before.outputs[key])
                yield from _contest(metric, outputs, rival)
        else:
            metric = "reliability" if key.role == "rewrite" else "generality"
            yield from _accuracy(metric, outputs)
            yield from _contest(metric, outputs, rival)


def _accuracy(metric: str, outputs: Outputs) -> Iterator[tuple[str, float]]:
    yield f"{metric}.token", outputs.token
    yield f"{metric}.exact", outputs.exact


def _agreement(metric: str, after: Outputs, before: Outputs) -> Iterator[tuple[str, float]]:
    share = after.agreement(before)
    yield f"{metric}.token", share
    yield f"{metric}.exact", float(share == 1)


def _contest(metric: str, answer: Outputs, rival: Outputs | None) -> Iterator[tuple[str, float]]:
    if rival is None:
        return
    sound = answer.is_finite and rival.is_finite
    yield f"{metric}.success", float(sound and answer.mean_logprob > rival.mean_logprob)
    yield f"{metric}.magnitude", answer.probability - rival.probability if sound else 0.0
