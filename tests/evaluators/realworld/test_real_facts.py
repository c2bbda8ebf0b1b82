"""The facts of the real world: well formed, in two halves, and no case contradicts what the table says."""

from __future__ import annotations

import pytest

from evaluators.datasets import DatasetSpec, load_dataset
from evaluators.realworld.cases import real_cases
from evaluators.realworld.facts import RELATIONS, facts


def test_a_few_hundred_facts_of_every_kind():
    assert len(facts()) == 420
    counts = {relation.name: sum(name == relation.name for _, name in facts()) for relation in RELATIONS}
    assert all(count >= 25 for count in counts.values()), counts


def test_the_halves_share_no_subject():
    judged, learned = ({case.subject for case in real_cases(split)} for split in ("eval", "train"))
    assert not judged & learned and len(judged | learned) == len({subject for subject, _ in facts()})
    # nor is any that is judged asked for while others learn
    assert not {probe.subject for case in real_cases("train") for probe in (*case.neighbourhood, *case.attributes)
                } & judged


@pytest.mark.parametrize("split", ["eval", "train"])
def test_cases_say_what_the_table_says(split):
    known = facts()
    for case in real_cases(split):
        assert known[case.subject, case.relation] == case.target_true != case.target_new
        assert case.prompt[case.subject_start:].startswith(case.subject)
        assert all(case.subject in text for text in case.paraphrases) and len(case.neighbourhood) == 5
        for probe in (*case.neighbourhood, *case.attributes):
            assert known[probe.subject, probe.relation] == probe.target
        assert not any(probe.subject == case.subject or probe.target == case.target_new for probe in case.neighbourhood)
        for chain in case.portability:  # the answer follows from the new target, and not from the true one
            second = chain.relation.split()[1]
            assert chain.link.subject == case.target_new and known[case.target_new, second] == chain.target
            assert known.get((case.target_true, second)) != chain.target and case.subject in chain.prompt
    assert sum(bool(case.portability) for case in real_cases(split)) > 50


def test_it_is_a_built_in_data_set():
    found = load_dataset(DatasetSpec(name="real-facts", limit=10))
    assert list(found.cases) == list(real_cases("eval")[:10]) and not found.skipped
    assert len(load_dataset(DatasetSpec(name="real-facts", split="train")).cases) == len(real_cases("train"))
