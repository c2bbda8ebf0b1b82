import pytest
from pydantic import ValidationError

from editors.core.errors import CaseError
from evaluators.cases import Case, Probe


def test_request_carries_the_whole_edit():
    case = Case(id="7", subject="Art", prompt="Where was Art born, when Art was born?", target_new="Rome",
                target_true="Oslo", subject_start=25)
    request = case.request()
    assert (request.id, request.prompt, request.subject, request.target) == ("7", case.prompt, "Art", "Rome")
    assert (request.target_true, request.subject_start, request.subject_end) == ("Oslo", 25, 28)


@pytest.mark.parametrize("change", [{"subject": "Bo"}, {"target_new": " "}, {"subject_start": 3}])
def test_request_of_a_case_that_cannot_be_edited(change):
    case = Case.model_validate({"id": "7", "subject": "Art", "prompt": "Art is", "target_new": "red"} | change)
    with pytest.raises(CaseError):
        case.request()


def test_cases_are_values():
    probe = Probe(prompt="Bo is", target="blue")
    with pytest.raises(ValidationError):
        probe.target = "red"
    with pytest.raises(ValidationError, match="extra"):
        Probe.model_validate({"prompt": "Bo is", "target": "blue", "answer": "red"})
    case = Case(id="7", subject="Art", prompt="Art is", target_new="red", neighbourhood=(probe,))
    assert Case.model_validate_json(case.model_dump_json()) == case
