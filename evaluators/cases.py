"""What an edit is judged by: the edit itself and the questions asked before and after it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict

from editors.core.requests import EditRequest

if TYPE_CHECKING:  # reading cases loads no torch
    from editors.core.patches.patch import Patch

Role = Literal["rewrite", "paraphrase", "neighbourhood", "attributes", "forgetfulness", "unrelated", "portability",
               "link", "distracting"]
Which = Literal["answer", "rival"]
ROLES: tuple[Role, ...] = tuple(role for role in get_args(Role) if role != "distracting")  # what is always asked


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Probe(_Value):
    """A prompt and the answer teacher-forced after it; `subject` and `relation` name the fact it asks for, if known."""

    prompt: str
    target: str
    subject: str | None = None
    relation: str | None = None


class Chain(Probe):
    """A portability probe: a question whose answer follows from the edit.

    A `hop` takes one more fact, which `link` asks for alone, about the edit's new target: a hop counts only for models
    that know it. `inverse` turns the edited relation round, and `subject` calls its subject by another name (Yao et al.
    2023, section 5.1; the kinds of their later data files). `logical` is what else the edit implies (KnowEdit's logical
    generalization).
    """

    kind: Literal["hop", "inverse", "subject", "logical"] = "hop"
    link: Probe | None = None


class Case(_Value):
    """One editable fact and everything asked about it.

    `paraphrases` reword `prompt`; `neighbourhood` asks other subjects for the same relation, `attributes` the same
    subject for other relations, `forgetfulness` for what else the edited relation holds of it, `unrelated` anything
    else; `portability` asks what follows from the edit.
    `generation_prompts` are openings to write on from, and `references` texts about things of which the new target is
    true, to compare what is written with (Meng et al. 2022, section 3.4).
    `also_true` are further names of the true answer. `subject_start` is the subject's character offset in `prompt`,
    where the data set says it.
    """

    id: str
    subject: str
    prompt: str
    target_new: str
    target_true: str | None = None
    relation: str | None = None
    subject_start: int | None = None
    paraphrases: tuple[str, ...] = ()
    neighbourhood: tuple[Probe, ...] = ()
    attributes: tuple[Probe, ...] = ()
    forgetfulness: tuple[Probe, ...] = ()
    unrelated: tuple[Probe, ...] = ()
    portability: tuple[Chain, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    also_true: tuple[str, ...] = ()

    def request(self) -> EditRequest:
        """The edit to ask for. Raises `CaseError` for an empty target or a subject that is not in the prompt."""
        return EditRequest(self.prompt, self.subject, self.target_new, self.target_true, self.id, self.subject_start)


class Skipped(_Value):
    """A case that could not be used, and why."""

    case_id: str
    reason: str


class ProbeKey(NamedTuple):
    """Which probe of a case, and which of its two answers: its own (`answer`), or the one it competes with (`rival`).

    Rewrite and paraphrases answer with the new target, against the true one; neighbourhood probes with their own
    answer, against the new target. A `distracting` probe is a neighbourhood probe behind the edit as a sentence.
    """

    role: Role
    number: int
    which: Which = "answer"


def ask(case: Case) -> Iterator[tuple[ProbeKey, str, str]]:
    """(key, prompt, target) of every question."""
    true, new = case.target_true, case.target_new
    rewritten = [Probe(prompt=prompt, target=new) for prompt in (case.prompt, *case.paraphrases)]
    probes: dict[Role, Sequence[Probe]] = {
        "rewrite": rewritten[:1], "paraphrase": rewritten[1:], "neighbourhood": case.neighbourhood,
        "attributes": case.attributes, "forgetfulness": case.forgetfulness, "unrelated": case.unrelated,
        "portability": case.portability, "distracting": distracting(case)}
    for role, asked in probes.items():
        for number, probe in enumerate(asked):
            yield ProbeKey(role, number), probe.prompt, probe.target
            if true is not None and role in ("rewrite", "paraphrase", "neighbourhood"):
                yield ProbeKey(role, number, "rival"), probe.prompt, true if probe.target == new else new
    for number, chain in enumerate(case.portability):
        if chain.link is not None:
            yield ProbeKey("link", number), chain.link.prompt, chain.link.target


def distracting(case: Case) -> list[Probe]:
    """The neighbourhood probes, each with the edit as a sentence before it."""
    return [probe.model_copy(update={"prompt": f"{case.prompt} {case.target_new}. {probe.prompt}"})
            for probe in case.neighbourhood]


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


@dataclass(frozen=True)
class Edited:
    """A case with the patch it is judged under and what that patch edited. Cases of one edit share the patch."""

    case: Case
    patch: Patch
    facts: EditedFacts
