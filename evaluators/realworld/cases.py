"""Cases about facts of the real world, in COUNTERFACT's shape."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cache

from evaluators.cases import Case, Chain, Probe
from evaluators.realworld.facts import BY_NAME, CHAINED, HOPS, RELATIONS, Relation, facts
from evaluators.testbed.cases import Split

NEIGHBOURS = 5
UNRELATED = (("Two plus two equals", "four"), ("The opposite of hot is", "cold"), ("The sun rises in the", "east"),
             ("Water freezes at zero degrees", "Celsius"), ("A week has seven", "days"),
             ("The color of fresh snow is", "white"))


@cache
def real_cases(split: Split, limit: int | None = None) -> tuple[Case, ...]:
    """Every fact about the split's subjects, each given a new answer of the same kind; or the first `limit`.

    Half of the subjects are judged and half learned from. Relations are mixed.
    """
    chosen = [(subject, BY_NAME[name]) for subject, name in facts() if subject in _subjects(split)]
    random.Random("order").shuffle(chosen)
    return tuple(_case(f"real-{split}-{number:03d}", subject, relation, split)
                 for number, (subject, relation) in enumerate(chosen[:limit]))


@cache
def _subjects(split: Split) -> frozenset[str]:
    by_kind = defaultdict[str, list[str]](list)
    for subject, name in facts():
        if subject not in by_kind[BY_NAME[name].about]:
            by_kind[BY_NAME[name].about].append(subject)
    chosen: set[str] = set()
    for kind, names in by_kind.items():
        random.Random(f"split {kind}").shuffle(names)
        half = len(names) // 2
        chosen.update({"eval": names[:half], "train": names[half:], "all": names}[split])
    return frozenset(chosen)


def _case(name: str, subject: str, relation: Relation, split: Split) -> Case:
    draw = random.Random(f"{subject} {relation.name}")
    true = facts()[subject, relation.name]
    new = draw.choice(sorted({answer for (_, other), answer in facts().items() if other == relation.name} - {true}))
    others = [other for other in RELATIONS if (subject, other.name) in facts() and other != relation]
    return Case(
        id=name, subject=subject, prompt=relation.prompt.format(subject), target_new=new, target_true=true,
        relation=relation.name, subject_start=relation.prompt.index("{}"),
        paraphrases=tuple(text.format(subject) for text in relation.paraphrases),
        neighbourhood=tuple(_probe(each, relation) for each in _neighbours(subject, relation, true, new, split, draw)),
        attributes=tuple(_probe(subject, other) for other in others),
        unrelated=tuple(Probe(prompt=prompt, target=answer) for prompt, answer in draw.sample(UNRELATED, 2)),
        portability=tuple(_chains(subject, relation, true, new, draw)))


def _probe(subject: str, relation: Relation) -> Probe:
    return Probe(prompt=relation.prompt.format(subject), target=facts()[subject, relation.name], subject=subject,
                 relation=relation.name)


def _neighbours(subject: str, relation: Relation, true: str, new: str, split: Split, draw: random.Random) -> list[str]:
    """Other subjects, those with the same true answer first; none has the new answer, nor is judged where it is learned
    from."""
    allowed = _subjects(split if split == "train" else "all")
    answers = {other: answer for (other, name), answer in facts().items()
               if name == relation.name and other != subject and other in allowed}
    same = [other for other, answer in answers.items() if answer == true]
    rest = [other for other, answer in answers.items() if answer not in (true, new)]
    chosen = draw.sample(same, min(NEIGHBOURS, len(same)))
    return chosen + draw.sample(rest, NEIGHBOURS - len(chosen))


def _chains(subject: str, relation: Relation, true: str, new: str, draw: random.Random) -> list[Chain]:
    """One question whose answer follows from the new one, and would be another with the true one."""
    seconds = [name for name in HOPS.get(relation.name, ())
               if (new, name) in facts() and facts()[new, name] != facts().get((true, name))]
    if not seconds:
        return []
    second = BY_NAME[draw.choice(seconds)]
    asked = CHAINED[relation.name].format(subject)
    prompt = second.prompt.format(asked)
    return [Chain(prompt=prompt[0].upper() + prompt[1:], target=facts()[new, second.name], subject=subject,
                  relation=f"{relation.name} {second.name}", link=_probe(new, second))]
