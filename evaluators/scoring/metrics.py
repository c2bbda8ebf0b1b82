"""Turns observations into scores, under the names in the table of metrics.

A metric's name says how it is measured: `.token` is teacher-forced token accuracy (what the paper and EasyEdit report),
`.exact` that all target tokens are right; `.success` and `.magnitude` are COUNTERFACT's (Meng et al. 2022, section
3.4): the answer against its rival, by mean log-probability per token. Locality's `.token` and `.exact` compare with the
unedited model's own answers (Yao et al. 2023, Eq. 4). `newest.` is a stream's edit right after it was made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal, NamedTuple

from evaluators.cases import Case, Chain, EditedFacts, ProbeKey, ask
from evaluators.scoring.answers import same_answer

if TYPE_CHECKING:  # observing loads torch, and reports need only the names below
    from evaluators.scoring.observe import Observation, Outputs


@dataclass(frozen=True)
class Metric:
    """One line of the table of metrics. `version` grows when its values change: it is part of the ids of tasks. `main`
    are those that tables show unless all are asked for."""

    name: str
    meaning: str
    unit: Literal["share", "probability", "cosine", "nats", "bits", "perplexity", "seconds", "bytes", "operations",
                  "joules"] = "share"
    better: Literal["higher", "lower"] = "higher"
    version: int = 1
    main: bool = False


#: Ways to look at a probe: kind -> {how: (meaning, unit)}.
KINDS: dict[str, dict[str, tuple[str, Literal["share", "probability"]]]] = {
    "accuracy": {"token": ("share of target tokens right, teacher-forced", "share"),
                 "exact": ("all target tokens right, teacher-forced", "share")},
    "agreement": {"token": ("share of tokens predicted as the unedited model does", "share"),
                  "exact": ("all tokens predicted as the unedited model does", "share")},
    "contest": {"success": ("the right answer more probable than its rival", "share"),
                "magnitude": ("the right answer's probability less its rival's", "probability")},
}
LOCALITY = {"neighbourhood": ("locality", "other subjects' facts of the same relation"),
            "attributes": ("locality.attributes", "the same subject's other facts"),
            "forgetfulness": ("locality.forgetfulness", "what else the edited relation holds of the subject"),
            "distracting": ("locality.distracting", "neighbours, behind the edit as a sentence"),
            "unrelated": ("locality.unrelated", "other text")}


def kinds(name: str, what: str, *names: str, main: bool = False) -> Iterator[Metric]:
    """The metrics of some kinds of looking at one kind of probe; of the `main` ones `.exact` is shown."""
    for kind in names:
        for how, (meaning, unit) in KINDS[kind].items():
            yield Metric(f"{name}.{how}", f"{what}: {meaning}", unit, main=main and how == "exact")


#: Every metric that needs no measure; measures bring their own (`evaluators.scoring.measures.all_metrics`).
METRICS = {metric.name: metric for metric in (
    *kinds("reliability", "the edited prompt", "accuracy", "contest", main=True),
    *kinds("generality", "its paraphrases", "accuracy", "contest", main=True),
    *kinds(*LOCALITY["neighbourhood"], "agreement", "contest", main=True),
    *kinds(*LOCALITY["attributes"], "agreement", main=True),
    *kinds(*LOCALITY["forgetfulness"], "agreement"),
    *kinds(*LOCALITY["unrelated"], "agreement", main=True),
    *kinds("portability", "one hop more, where the unedited model knows the second fact", "accuracy", main=True),
    *kinds("portability.all", "one hop more, of all", "accuracy"),
    *kinds("portability.inverse", "the edited relation turned round", "accuracy"),
    *kinds("portability.subject", "the subject by another name", "accuracy"),
    *kinds("portability.logical", "what else the edit implies", "accuracy"),
    *kinds("newest.reliability", "streams: the edited prompt right after its edit", "accuracy", "contest"),
    *kinds("newest.generality", "streams: its paraphrases right after its edit", "accuracy", "contest"),
    Metric("edit.diverged", "the edit is not finite", better="lower"),
)}
#: What reports work out of the means of others.
DERIVED = {"score.success": Metric("score.success",
                                   "COUNTERFACT's S: harmonic mean of reliability, generality and locality `.success`")}
KNOWN_RANK = 10  # a link is known when its answer's first token is among this many most probable (paper, appendix B.1)


@dataclass(frozen=True)
class Score:
    """One case's value of one metric; `subject` is the cluster for confidence intervals, `texts` what was written."""

    case_id: str
    subject: str
    metric: str
    value: float
    texts: tuple[str, ...] | None = None


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
        scores += [Score(case.id, case.subject, metric, fmean(each.value for each in found),
                         tuple(each.text for each in found if each.text is not None) or None)
                   for metric, found in values.items()]
    return scores


class _Value(NamedTuple):
    """What one probe contributes to a metric."""

    metric: str
    value: float
    text: str | None = None


def _values(case: Case, after: Observation, before: Observation, edits: EditedFacts) -> Iterator[_Value]:
    targets = {key: target for key, _, target in ask(case)}
    for key, outputs in after.outputs.items():
        for metric in counts_for(case, key, before, edits):
            if key.role in LOCALITY:
                yield from _agreement(metric, outputs, before.outputs[key])
            else:
                yield from _accuracy(metric, outputs, targets[key])
            yield from _contest(metric, outputs, after.get(key.role, key.number, "rival"))


def counts_for(case: Case, key: ProbeKey, before: Observation, edits: EditedFacts) -> Iterator[str]:
    """What the answer to a question is measured as, such as `generality`: metrics' names without how. Nothing where the
    edits are about what it asks for, so that locality leaves it out."""
    if key.which == "rival" or key.role == "link":
        return
    if key.role == "portability":
        yield from _portability(case.portability[key.number], before.get("link", key.number))
    elif key.role in LOCALITY:
        # A distracting probe asks for what its neighbourhood probe does.
        probes = getattr(case, "neighbourhood" if key.role == "distracting" else key.role)
        if not edits.cover(probes[key.number]):
            yield LOCALITY[key.role][0]
    else:
        yield "reliability" if key.role == "rewrite" else "generality"


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
        yield _Value(f"{metric}.generation", float(outputs.is_finite and same_answer(outputs.text, target)),
                     outputs.text)


def _agreement(metric: str, after: Outputs, before: Outputs) -> Iterator[_Value]:
    share = after.agreement(before)
    yield _Value(f"{metric}.token", share)
    yield _Value(f"{metric}.exact", float(share == 1))
    if after.kl is not None:
        yield _Value(f"{metric}.kl", after.kl)
    if after.text is not None and before.text is not None:
        yield _Value(f"{metric}.generation", float(after.is_finite and same_answer(after.text, before.text)),
                     after.text)


def _contest(metric: str, answer: Outputs, rival: Outputs | None) -> Iterator[_Value]:
    if rival is None:
        return
    sound = answer.is_finite and rival.is_finite
    yield _Value(f"{metric}.success", float(sound and answer.mean_logprob > rival.mean_logprob))
    yield _Value(f"{metric}.magnitude", answer.probability - rival.probability if sound else 0.0)
