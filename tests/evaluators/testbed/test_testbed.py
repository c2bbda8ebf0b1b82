import os
import subprocess
import sys
from itertools import chain, takewhile

import pytest

from evaluators.datasets import DatasetSpec, load_dataset
from evaluators.models import model_path
from evaluators.testbed import MODELS
from evaluators.testbed.cases import testbed_cases as make_cases  # pytest would collect the name as a test
from evaluators.testbed.schema import EDITABLE, FILLER, HOPS, RELATIONS
from evaluators.testbed.templates import pick
from evaluators.testbed.world import build_world

EVERY = [(flavour, split) for flavour in ("cloze", "question") for split in ("eval", "train", "all")]
WORLD = build_world()


def wordings(relation, subject, *, held_out):
    return {template.fill(subject): template.style for template in pick(RELATIONS[relation], held_out=held_out)}


@pytest.mark.parametrize(("flavour", "split"), EVERY)
def test_every_case_is_about_a_fact_of_the_world(flavour, split):
    cases = make_cases(flavour, split)
    assert len(cases) >= 2000
    assert len({case.id for case in cases}) == len({(case.subject, case.relation) for case in cases}) == len(cases)
    assert cases[17].id == f"{flavour}-{split}-00017"
    for case in cases:
        relation = RELATIONS[case.relation]
        assert relation in EDITABLE
        assert case.target_true == WORLD.answer(case.subject, relation) != case.target_new
        assert case.target_new in WORLD.entities[relation.object]
        assert case.request().subject_end == case.subject_start + len(case.subject)


@pytest.mark.parametrize("flavour", ["cloze", "question"])
def test_wordings(flavour):
    for case in make_cases(flavour, "eval"):
        assert wordings(case.relation, case.subject, held_out=False)[case.prompt] == flavour
        styles = [wordings(case.relation, case.subject, held_out=True)[text] for text in case.paraphrases]
        assert styles == [flavour, flavour, "question"]
        assert len(set(case.paraphrases)) == 3
        for probe in (*case.neighbourhood, *case.attributes):
            assert wordings(probe.relation, probe.subject, held_out=False)[probe.prompt] == flavour


@pytest.mark.parametrize("flavour", ["cloze", "question"])
def test_locality_probes(flavour):
    for case in make_cases(flavour, "eval"):
        assert len({probe.subject for probe in case.neighbourhood} - {case.subject}) == 5
        answers = [probe.target for probe in case.neighbourhood]
        first = list(takewhile(lambda answer: answer == case.target_true, answers))  # noqa: B023
        assert case.target_true not in answers[len(first):]
        assert case.target_new not in answers
        others = sum(relation.subject == RELATIONS[case.relation].subject for relation in EDITABLE) - 1
        assert len({probe.relation for probe in case.attributes} - {case.relation}) == min(3, others)
        assert {probe.subject for probe in case.attributes} <= {case.subject}
        for probe in (*case.neighbourhood, *case.attributes):
            assert probe.target == WORLD.facts[probe.subject, probe.relation]
        assert {f"{probe.prompt} {probe.target}" for probe in case.unrelated} <= set(FILLER)
        assert len(case.unrelated) == 2


@pytest.mark.parametrize("flavour", ["cloze", "question"])
def test_portability_follows_from_the_new_target(flavour):
    for case in make_cases(flavour, "eval"):
        (probe,) = case.portability
        hop = HOPS[probe.relation]
        assert hop.first.name == case.relation
        assert probe.target == WORLD.answer(case.target_new, hop.second) != WORLD.chain_answer(case.subject, hop)
        assert probe.prompt in {template.fill(case.subject) for template in pick(hop, held_out=False, style="question")}
        assert (probe.link.subject, probe.link.relation) == (case.target_new, hop.second.name)
        assert probe.link.target == probe.target
        assert probe.link.prompt in wordings(hop.second.name, case.target_new, held_out=False)


def test_splits_share_no_subject_whatever_the_flavour():
    subjects = {split: {case.subject for flavour in ("cloze", "question") for case in make_cases(flavour, split)}
                for split in ("eval", "train")}
    assert subjects["eval"].isdisjoint(subjects["train"])


@pytest.mark.parametrize(("flavour", "split"), EVERY)
def test_any_prefix_mixes_relations_and_repeats_subjects_late(flavour, split):
    cases = make_cases(flavour, split)
    subjects = len({case.subject for case in cases})
    assert len({case.subject for case in cases[:subjects]}) == subjects
    assert {case.relation for case in cases[:100]} == {relation.name for relation in EDITABLE}


def test_the_same_in_every_process():
    program = ("from evaluators.datasets import DatasetSpec, load_dataset;"
               "print(load_dataset(DatasetSpec(name='testbed-questions', limit=300)).digest)")
    digests = {subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                              capture_output=True, text=True).stdout.strip() for seed in ("1", "2")}
    assert digests == {load_dataset(DatasetSpec(name="testbed-questions", limit=300)).digest}


def test_every_prompt_can_be_tokenised(tiny_gptj):
    for case in chain(make_cases("cloze", "eval")[:50], make_cases("question", "train")[:50]):
        for probe in (*case.neighbourhood, *case.attributes, *case.unrelated, *case.portability):
            encoded = tiny_gptj.encode(probe.prompt, probe.target)
            assert tiny_gptj.tokenizer.decode(encoded.prompt + encoded.target) == f"{probe.prompt} {probe.target}"


def test_model_path():
    assert model_path("testbed-gptj") == MODELS["testbed-gptj"]
    assert model_path("EleutherAI/gpt-j-6b") == "EleutherAI/gpt-j-6b"


def test_the_first_cases_alone_are_those_of_the_whole():
    assert make_cases("cloze", "train", 7) == make_cases("cloze", "train")[:7]
