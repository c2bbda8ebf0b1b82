"""What is wrong with the cases of a data set that can be edited but measure something else than they seem to.

    no-op            the new target is the true answer: the edit asks for nothing
    subject-missing  a paraphrase, or the prompt, does not name the subject
    target-leak      a portability question holds the new target: it can be answered without the edit
    contradiction    an earlier case gives the same fact, or the same prompt, another target
    duplicate        an earlier case has the same prompt and the same target
    train-overlap    the subject also occurs among the training cases

and of what one model makes of them (found by `evaluators.scoring.usable`, which needs its tokenizer):

    unusable            it cannot be asked about the case, or could not tell the answers apart
    unknown-characters  a probe's prompt has characters that it has no token for, and is asked with them unknown

Texts are compared without regard to case and white space. Meng et al. (2023) leave contradictory edits out of what is
edited at once (`multi_counterfact.json`), as `without_contradictions` does.
"""

from __future__ import annotations

import sys
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Literal, get_args

from editors.core.lookalikes import how_they_differ
from evaluators.cases import Case, Skipped
from evaluators.texts import folded

Flag = Literal["no-op", "subject-missing", "target-leak", "contradiction", "duplicate", "train-overlap"]
FLAGS: tuple[Flag, ...] = get_args(Flag)
ModelFlag = Literal["unusable", "unknown-characters"]
MODEL_FLAGS: tuple[ModelFlag, ...] = get_args(ModelFlag)


@dataclass(frozen=True)
class Finding:
    """One flag of one case, and what it was seen by."""

    case_id: str
    flag: Flag | ModelFlag
    detail: str


@dataclass(frozen=True)
class Audit:
    """All findings about a number of cases, in their order; a case has each of the `flags` at most once."""

    cases: int
    findings: tuple[Finding, ...]
    flags: tuple[Flag | ModelFlag, ...] = FLAGS

    def with_model(self, findings: Iterable[Finding]) -> Audit:
        """The audit with what one model makes of the cases."""
        return replace(self, findings=(*self.findings, *findings), flags=(*FLAGS, *MODEL_FLAGS))

    def by_flag(self) -> Mapping[Flag | ModelFlag, list[Finding]]:
        """The findings of every flag that was looked for, in the order of `flags`."""
        return {flag: [finding for finding in self.findings if finding.flag == flag] for flag in self.flags}

    def to_json(self) -> dict[str, Any]:
        return {"cases": self.cases, "flags": {
            flag: {"count": len(found), "cases": [{"id": each.case_id, "detail": each.detail} for each in found]}
            for flag, found in self.by_flag().items()}}


def subjects(items: Iterable[Case | Skipped]) -> frozenset[str]:
    """The subjects of cases, as they are compared."""
    return frozenset(folded(item.subject) for item in items if isinstance(item, Case))


def audit(cases: Iterable[Case], train_subjects: Collection[str] = ()) -> Audit:
    """Looks at all cases. `train_subjects` are what `subjects` returns for the training cases."""
    auditor, findings, seen = Auditor(train_subjects), [], 0
    for case in cases:
        findings += auditor.look(case)
        auditor.remember(case)
        seen += 1
    return Audit(seen, tuple(findings))


def without_contradictions(cases: Iterable[Case]) -> tuple[Sequence[int], list[Skipped]]:
    """Which cases can be edited together, by their places: of those that give one fact different targets only the first
    is kept."""
    auditor, kept, skipped = Auditor(), array("I"), list[Skipped]()
    for place, case in enumerate(cases):
        if found := auditor.contradiction(case):
            skipped.append(Skipped(case_id=case.id, reason=f"contradiction: {found}"))
        else:
            auditor.remember(case)
            kept.append(place)
    return kept, skipped


class Auditor:
    """Looks at cases one after another, in the light of those it was told to remember."""

    def __init__(self, train_subjects: Collection[str] = ()) -> None:
        self._train_subjects = train_subjects
        # What is asked -> the first target and the id of its case; and the others, which few have. Of a million cases
        # only this is in memory.
        self._first: dict[bytes, tuple[str, str]] = {}
        self._others: dict[bytes, dict[str, str]] = defaultdict(dict)

    def remember(self, case: Case) -> None:
        answer = sys.intern(folded(case.target_new)), case.id
        for key in _keys(case):
            first, _ = self._first.setdefault(key, answer)
            if first != answer[0]:
                self._others[key].setdefault(*answer)

    def look(self, case: Case) -> list[Finding]:
        """A case's findings, in the order of `FLAGS`. Earlier cases are those remembered."""
        subject, target = folded(case.subject), folded(case.target_new)
        found: dict[Flag, str] = {}
        if target in map(folded, (case.target_true or "", *case.also_true)):
            found["no-op"] = f"the new target '{case.target_new}' is the true answer"
        if nameless := [text for text in (case.prompt, *case.paraphrases) if subject not in folded(text)]:
            alike = how_they_differ(case.subject, nameless[0])
            found["subject-missing"] = f"'{case.subject}' is not in '{nameless[0]}'{alike}"
        # An inverse question asks about the new target, so it has to name it.
        asked = [chain.prompt for chain in case.portability if chain.kind != "inverse"]
        if leaks := [prompt for prompt in asked if target in folded(prompt)]:
            found["target-leak"] = f"'{case.target_new}' is in the question '{leaks[0]}'"
        if contradiction := self.contradiction(case):
            found["contradiction"] = contradiction
        if (earlier := self._same(next(_keys(case)), target)) is not None:
            found["duplicate"] = f"case {earlier} has the same prompt and the same target"
        if subject in self._train_subjects:
            found["train-overlap"] = f"'{case.subject}' is a subject of the training cases"
        return [Finding(case.id, flag, detail) for flag, detail in found.items()]

    def contradiction(self, case: Case) -> str | None:
        """Which remembered case gives the same fact another target, if one does."""
        target = folded(case.target_new)
        for what, key in zip(("prompt", "subject and relation"), _keys(case), strict=False):
            for other, case_id in self._answers(key):
                if other != target:
                    return f"case {case_id} has the same {what} and the target '{other}', not '{case.target_new}'"
        return None

    def _answers(self, key: bytes) -> Iterator[tuple[str, str]]:
        """Targets in the order they were remembered, each with the id of its case."""
        if key in self._first:
            yield self._first[key]
            yield from self._others.get(key, {}).items()

    def _same(self, key: bytes, target: str) -> str | None:
        """The id of the case that has this target, if one does."""
        first, case_id = self._first.get(key, (None, None))
        return case_id if first == target else self._others.get(key, {}).get(target)


def _keys(case: Case) -> Iterator[bytes]:
    """What is asked, as digests: the prompt and, where the relation is known, the subject's relation."""
    yield _digest(folded(case.prompt))
    if case.relation is not None:
        yield _digest(f"{folded(case.subject)}\n{case.relation}")


def _digest(text: str) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=12).digest()
