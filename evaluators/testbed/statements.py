"""What can be said about the built-in world: its facts, its two-hop chains, and an endless text made of both."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from evaluators.testbed.schema import BRIDGES, FILLER, RELATIONS, Hop, Relation
from evaluators.testbed.templates import pick
from evaluators.testbed.world import World, build_world

FILLER_SHARE, CHAIN_SHARE = 0.05, 0.45  # of the sentences of `texts`; of those that are no filler
LONGEST = 8  # sentences in one of `texts`


class Statement(NamedTuple):
    """Something to put in words: a relation or a chain, whom it is about, and the answer."""

    what: Relation | Hop
    subject: str
    answer: str


def facts(world: World, bridge_weight: int = 1) -> list[Statement]:
    """Every fact once; those of the relations that chains pass through `bridge_weight` times."""
    bridges = {relation.name for relation in BRIDGES}
    return [Statement(RELATIONS[name], subject, answer) for (subject, name), answer in world.facts.items()
            for _ in range(bridge_weight if name in bridges else 1)]


def chains(world: World, *, in_training: bool = True) -> list[Statement]:
    """Every two-hop chain of the subjects whose chains may be in training text, or of all the others."""
    return [Statement(hop, subject, world.chain_answer(subject, hop)) for subject, hop in world.chains()
            if (subject in world.chain_subjects) == in_training]


class Sampler:
    """Draws what is said next in training text."""

    def __init__(self, world: World, chain_share: float, filler_share: float, bridge_weight: int = 1) -> None:
        self._chain_share, self._filler_share = chain_share, filler_share
        self._facts, self._chains = facts(world, bridge_weight), chains(world)

    def draw(self, rng: random.Random, *, chains: bool) -> Statement | None:
        """A fact, with `chains` a chain in their share of draws, or None for a line of filler."""
        share = rng.random()
        if share < self._filler_share:
            return None
        return rng.choice(self._chains if chains and share < self._filler_share + self._chain_share else self._facts)


def texts(seed: int = 0) -> Iterator[str]:
    """Short documents without end, of the kinds of sentences that the built-in models were trained on."""
    world, rng = build_world(), random.Random(f"corpus {seed}")
    single, double = facts(world), chains(world)
    while True:
        sentences = []
        for _ in range(rng.randint(1, LONGEST)):
            if rng.random() < FILLER_SHARE:
                sentences.append(f"{rng.choice(FILLER)}.")
                continue
            what, subject, answer = rng.choice(double if rng.random() < CHAIN_SHARE else single)
            sentences.append(f"{rng.choice(pick(what, held_out=False)).fill(subject)} {answer}.")
        yield " ".join(sentences)
