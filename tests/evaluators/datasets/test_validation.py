"""Cases to choose settings by: behind those that are judged, and without anything in common with them."""

from __future__ import annotations

import json

import pytest

from editors.core.errors import InputError
from evaluators.datasets import DatasetSpec, load_dataset, validation_set


@pytest.fixture
def spec(tmp_path):
    """A data set of edits, of which each is a subject and a prompt."""

    def write(*facts, name="edits", **fields):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps([{"subject": subject, "prompt": prompt.format(subject), "target_new": "x",
                                     "id": f"{name}-{number}"} for number, (subject, prompt) in enumerate(facts)]))
        return DatasetSpec(name=name, path=str(path), format="edits", **fields)

    return write


def about(dataset):
    return [case.subject for case in dataset.cases]


@pytest.mark.parametrize("fields", [{"limit": 150}, {"limit": 40, "offset": 30}, {}])
@pytest.mark.parametrize("name", ["testbed-cloze", "testbed-questions"])
def test_built_in_cases_share_nothing_with_those_judged(name, fields):
    judged = load_dataset(DatasetSpec(name=name, **fields))
    found = validation_set(judged, 60)
    assert len(found.cases) == len({case.id for case in found.cases}) == 60
    for field in ("subject", "prompt", "id"):
        assert not ({getattr(case, field).casefold() for case in judged.cases}
                    & {getattr(case, field).casefold() for case in found.cases})
    assert found.spec.name == f"{name} (validation)" and found.digest != judged.digest


def test_records_behind_the_limit_in_their_order(spec):
    facts = [("Ann", "{} is"), ("Bob", "{} is"), ("ANN ", "{} has"), ("Cid", "{} is"), ("Dan", "{} is")]
    judged = load_dataset(spec(*facts, limit=2))
    assert about(judged) == ["Ann", "Bob"] and about(validation_set(judged, 2)) == ["Cid", "Dan"]


def test_a_prompt_that_is_judged_is_left_out(spec):
    judged = load_dataset(spec(("Ann", "{} met Bob"), ("Bob", "Ann met {}"), ("Cid", "{} is"), limit=1))
    assert about(validation_set(judged, 1)) == ["Cid"]


def test_without_a_limit_the_training_cases_are_taken(spec):
    train = spec(("Ann", "{} has"), ("Eve", "{} is"), name="train")
    judged = load_dataset(spec(("Ann", "{} is"), ("Bob", "{} is"), train=train.path))
    assert about(validation_set(judged, 1)) == ["Eve"]


def test_too_few_cases_are_refused_with_the_cure(spec):
    facts = [("Ann", "{} is"), ("Bob", "{} is"), ("Ann", "{} has")]
    for fields, count, told in (({"limit": 1}, 2, "has 1 cases to validate on .* lower 'validation: {limit: 2}'"),
                                ({"limit": 3}, 1, "no cases to validate on: .*; lower the data set's 'limit'"),
                                ({}, 1, "give it a 'limit', .*, or training cases")):
        with pytest.raises(InputError, match=told):
            validation_set(load_dataset(spec(*facts, **fields)), count)
