"""Cases about the built-in world: cloze (in COUNTERFACT's shape) and questions (in ZsRE's)."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

from evaluators.cases import Case, Chain, Probe
from evaluators.testbed.schema import EDITABLE, FILLER, HOPS, Hop, Relation
from evaluators.testbed.templates import Style, Template, pick
from evaluators.testbed.world import World, build_world

Flavour = Literal["cloze", "question"]
Split = Literal["eval", "train", "all"]
NEIGHBOURS, ATTRIBUTES, UNRELATED = 5, 3, 2
PARAPHRASES: dict[Flavour, tuple[tuple[Style, int], ...]] = {
    "cloze": (("cloze", 2), ("question", 1)), "question": (("question", 3),)}


@cache
def testbed_cases(flavour: Flavour, split: Split, limit: int | None = None) -> tuple[Case, ...]:
    """Every editable fact of the split's subjects, each given a new answer of the same type; or the first `limit`.

    Both flavours share one split of the subjects. Prompts and probes use wordings from training; paraphrases use
    wordings held out of it. A subject's facts lie as far apart in the order as they can, relations mixed.
    """
    world = build_world()
    subjects = defaultdict(list)
    for (subject, relation_name), answer in world.facts.items():
        subjects[relation_name, answer].append(subject)
    facts = _order(_subjects(world, split))[:limit]
    return tuple(_CaseMaker(world, subjects, flavour, subject, relation).case(f"{flavour}-{split}-{number:05d}")
                 for number, (subject, relation) in enumerate(facts))


def _subjects(world: World, split: Split) -> list[tuple[str, str]]:
    """The (subject, type) pairs of one half of each type, or of all."""
    chosen = []
    for kind in dict.fromkeys(relation.subject for relation in EDITABLE):
        names = list(world.entities[kind])
        random.Random(f"split {kind}").shuffle(names)
        half = len(names) // 2
        part = {"eval": names[:half], "train": names[half:], "all": names}[split]
        chosen += [(name, kind) for name in part]
    return chosen


def _order(subjects: list[tuple[str, str]]) -> list[tuple[str, Relation]]:
    """All facts of the subjects: first one of each subject, then a second of each that has one, and so on."""
    rng = random.Random("order")
    left = {subject: rng.sample(about, len(about)) for subject, kind in subjects
            if (about := [relation for relation in EDITABLE if relation.subject == kind])}
    ordered = []
    while left:
        for subject in rng.sample(list(left), len(left)):
            ordered.append((subject, left[subject].pop()))
            if not left[subject]:
                del left[subject]
    return ordered


class _CaseMaker:
    """Makes the case of one fact; all its choices come from a generator of its own.

    `subjects` are the subjects that have an answer, by (relation name, answer).
    """

    def __init__(self, world: World, subjects: Mapping[tuple[str, str], Sequence[str]], flavour: Flavour, subject: str,
                 relation: Relation) -> None:
        self.world, self.subjects, self.flavour = world, subjects, flavour
        self.subject, self.relation = subject, relation
        self.rng = random.Random(f"{flavour} {subject} {relation.name}")
        self.true = world.answer(subject, relation)
        self.new, self.hop = self._counterfactual()

    def case(self, name: str) -> Case:
        # Everything is drawn from one generator, so the order of these lines decides what the cases are.
        wording = self._wording(self.relation)
        paraphrases = [held_out.fill(self.subject) for style, count in PARAPHRASES[self.flavour]
                       for held_out in self.rng.sample(pick(self.relation, held_out=True, style=style), count)]
        neighbourhood = self._neighbourhood()
        others = [relation for relation in EDITABLE
                  if relation.subject == self.relation.subject and relation != self.relation]
        attributes = [self._probe(self.subject, relation)
                      for relation in self.rng.sample(others, min(ATTRIBUTES, len(others)))]
        lines = [line.rpartition(" ") for line in self.rng.sample(FILLER, UNRELATED)]
        chain = Chain(prompt=self._wording(self.hop, "question").fill(self.subject),
                      target=self.world.answer(self.new, self.hop.second), subject=self.subject,
                      relation=self.hop.name, link=self._probe(self.new, self.hop.second))
        return Case(
            id=name, subject=self.subject, prompt=wording.fill(self.subject), target_new=self.new,
            target_true=self.true, relation=self.relation.name, subject_start=wording.text.index("{S}"),
            paraphrases=tuple(paraphrases), neighbourhood=tuple(neighbourhood), attributes=tuple(attributes),
            unrelated=tuple(Probe(prompt=prompt, target=last) for prompt, _, last in lines), portability=(chain,))

    def _wording(self, what: Relation | Hop, style: Style | None = None) -> Template:
        return self.rng.choice(pick(what, held_out=False, style=style or self.flavour))

    def _probe(self, subject: str, relation: Relation) -> Probe:
        return Probe(prompt=self._wording(relation).fill(subject), target=self.world.answer(subject, relation),
                     subject=subject, relation=relation.name)

    def _counterfactual(self) -> tuple[str, Hop]:
        """Another answer, and a chain on which it leads elsewhere than the true one."""
        hops = [hop for hop in HOPS.values() if hop.first == self.relation]
        objects = self.world.entities[self.relation.object]
        pairs = [(new, hop) for new in objects for hop in hops
                 if self.world.answer(new, hop.second) != self.world.answer(self.true, hop.second)]
        new = self.rng.choice(list(dict.fromkeys(new for new, _ in pairs)))
        return new, self.rng.choice([hop for other, hop in pairs if other == new])

    def _neighbourhood(self) -> list[Probe]:
        """Other subjects, those with the same true answer first; none has the new answer."""
        same = [name for name in self.subjects[self.relation.name, self.true] if name != self.subject]
        chosen = self.rng.sample(same, min(NEIGHBOURS, len(same)))
        if len(chosen) < NEIGHBOURS:
            others = [name for name in self.world.entities[self.relation.subject]
                      if self.world.answer(name, self.relation) not in (self.true, self.new)]
            chosen += self.rng.sample(others, NEIGHBOURS - len(chosen))
        return [self._probe(name, self.relation) for name in chosen]
