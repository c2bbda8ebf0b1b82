"""The built-in fact world: a seeded set of invented entities and the facts that hold between them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from evaluators.testbed.schema import BRIDGES, EDITABLE, HOPS, WORDS, Hop, Relation

# How many of each invented type. Those that chains pass through stay below 50: with more, models of this size did not
# learn the chains.
SIZES = {"continent": 5, "country": 16, "city": 48, "language": 24, "family": 6, "river": 12, "script": 5,
         "company": 40, "university": 160, "film": 160, "person": 900}
FIRST_NAMES, LAST_NAMES = 60, 300
CHAIN_TRAINING_SHARE = 0.8

_ONSETS = ["b", "d", "dr", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "tr", "v", "w", "z"]
_VOWELS = ["a", "e", "i", "o", "u"]
_CODAS = ["", *["l", "n", "r", "s", "m"]]
_SUFFIXES = {"continent": ("ia", "a"), "country": ("ia", "land", "stan"), "city": ("", "ville", "ton", "burg", "port"),
             "language": ("ish", "ese", "ic"), "family": ("ic", "an"), "last": ("", "son", "ez", "ov")}
_COMPANY_KINDS = ("Group", "Works", "Holdings", "Partners", "Motors", "Labs")
_FILM_KINDS = ("Return to", "Ballad of", "Nights in", "The Last", "Beyond")


class _Namer:
    """Draws pronounceable words that never repeat."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._used = {word for words in WORDS.values() for word in words}

    def word(self, suffixes: tuple[str, ...] = ("",)) -> str:
        while True:
            draw = self._rng.choice
            first = draw(_ONSETS) + draw(_VOWELS) + (draw(_CODAS) if self._rng.random() < 0.25 else "")
            word = first + draw(_ONSETS) + draw(_VOWELS) + draw(_CODAS) + draw(suffixes)
            if 4 <= len(word) <= 11 and word not in self._used:
                self._used.add(word)
                return word.capitalize()

    def words(self, count: int, suffixes: tuple[str, ...] = ("",)) -> list[str]:
        return [self.word(suffixes) for _ in range(count)]


@dataclass(frozen=True)
class World:
    """Entities by type, and facts as `(subject, relation name) -> object`.

    `chain_subjects` are the subjects whose two-hop questions may appear in training text; the others' are held out.
    """

    entities: Mapping[str, tuple[str, ...]]
    facts: Mapping[tuple[str, str], str]
    chain_subjects: frozenset[str]

    def answer(self, subject: str, relation: Relation) -> str:
        return self.facts[subject, relation.name]

    def chain_answer(self, subject: str, hop: Hop) -> str:
        """The answer to a two-hop question about `subject`."""
        return self.answer(self.answer(subject, hop.first), hop.second)

    def chains(self) -> Iterator[tuple[str, Hop]]:
        """Every (subject, hop) pair of the world."""
        for hop in HOPS.values():
            for subject in self.entities[hop.first.subject]:
                yield subject, hop


def _entities(rng: random.Random) -> dict[str, list[str]]:
    namer = _Namer(rng)
    entities = {kind: list(words) for kind, words in WORDS.items()}
    for kind in ("continent", "country", "city", "language", "family", "river", "script"):
        entities[kind] = namer.words(SIZES[kind], _SUFFIXES.get(kind, ("",)))
    entities["company"] = [f"{namer.word()} {rng.choice(_COMPANY_KINDS)}" for _ in range(SIZES["company"])]
    entities["university"] = [f"University of {word}" if rng.random() < 0.5 else f"{word} College"
                              for word in namer.words(SIZES["university"])]
    entities["film"] = [f"{rng.choice(_FILM_KINDS)} {word}" for word in namer.words(SIZES["film"])]
    first, last = namer.words(FIRST_NAMES), namer.words(LAST_NAMES, _SUFFIXES["last"])
    pairs: dict[str, None] = {}
    while len(pairs) < SIZES["person"]:
        pairs[f"{rng.choice(first)} {rng.choice(last)}"] = None
    entities["person"] = list(pairs)
    return entities


def _facts(rng: random.Random, entities: Mapping[str, list[str]]) -> dict[tuple[str, str], str]:
    facts = {}
    for relation in EDITABLE + BRIDGES:
        subjects, objects = entities[relation.subject], list(entities[relation.object])
        rng.shuffle(objects)
        answers = (objects * (len(subjects) // len(objects) + 1))[: len(subjects)]  # every object equally often
        rng.shuffle(answers)
        facts.update({(subject, relation.name): answer for subject, answer in zip(subjects, answers, strict=True)})
    return facts


@cache
def build_world(seed: int = 0) -> World:
    """The world of `seed`; the shipped models know the world of seed 0."""
    rng = random.Random(f"world {seed}")
    entities = _entities(rng)
    facts = _facts(rng, entities)
    kinds = dict.fromkeys(relation.subject for relation in EDITABLE)
    in_training = {subject for kind in kinds for subject in entities[kind] if rng.random() < CHAIN_TRAINING_SHARE}
    return World({kind: tuple(names) for kind, names in entities.items()}, facts, frozenset(in_training))
