"""What is learned from: text for second moments, and cases as facts to practise on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from editors.core.errors import InputError
from editors.core.examples import Example, Question
from evaluators.cases import Case
from evaluators.scoring.metrics import EditedFacts
from evaluators.testbed.schema import FILLER, RELATIONS, Hop, Relation
from evaluators.testbed.templates import pick
from evaluators.testbed.world import build_world

TESTBED_CORPUS = "testbed"
FILLER_SHARE, CHAIN_SHARE = 0.05, 0.45


def training_example(case: Case) -> Example:
    """A case as a fact to practise on: what is asked before and after an edit becomes what must stay."""
    facts = EditedFacts.of([case])
    unchanged = tuple(Question(probe.prompt, probe.target)
                      for probe in (*case.neighbourhood, *case.attributes, *case.unrelated) if not facts.cover(probe))
    return Example(case.request(), case.paraphrases, unchanged)


def corpus(name: str) -> Iterator[str]:
    """Texts by name: "testbed" (the built-in world's, without end) or a text file with one text a line.

    Raises `InputError`, at once, where there is no such file.
    """
    if name == TESTBED_CORPUS:
        return _testbed_texts()
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"corpus '{name}' is neither '{TESTBED_CORPUS}' nor a text file")
    return _lines(path)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (line.strip() for line in file if line.strip())


def _testbed_texts(seed: int = 0) -> Iterator[str]:
    """Short documents of the kinds of sentences the built-in models were trained on."""
    world, rng = build_world(), random.Random(f"corpus {seed}")
    facts: list[tuple[Relation | Hop, str, str]] = [
        (RELATIONS[name], subject, answer) for (subject, name), answer in world.facts.items()]
    chains: list[tuple[Relation | Hop, str, str]] = [
        (hop, subject, world.chain_answer(subject, hop)) for subject, hop in world.chains()
              if subject in world.chain_subjects]
    while True:
        sentences = []
        for _ in range(rng.randint(1, 8)):
            if rng.random() < FILLER_SHARE:
                sentences.append(f"{rng.choice(FILLER)}.")
                continue
            what, subject, answer = rng.choice(chains if rng.random() < CHAIN_SHARE else facts)
            sentences.append(f"{rng.choice(pick(what, held_out=False)).fill(subject)} {answer}.")
        yield " ".join(sentences)
