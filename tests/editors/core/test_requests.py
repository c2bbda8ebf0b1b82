"""Where the subject is, in characters and in tokens."""

import pytest

from editors.core.errors import CaseError
from editors.core.requests import EditRequest


@pytest.mark.parametrize(("prompt", "subject", "start"), [
    ("The birthplace of Budrer is", "Budrer", 18),
    ("Budrer works for", "Budrer", 0),
    ("The firm that employs Budrer", "Budrer", 22),
    ("Artemis met Art in", "Art", 12),  # as a word of its own, not the start of another
    ("Art met Art in", "Art", 0),
    ("What is Art's job?", "Art", 8),
    ("Where is Zoë (poet)?", "Zoë (poet)", 9),
])
def test_subject_is_found(prompt, subject, start):
    request = EditRequest(prompt, subject, "x")
    assert request.subject_start == start
    assert prompt[request.subject_start: request.subject_end] == subject


def test_a_given_start_wins_over_the_first_occurrence():
    assert EditRequest("Art met Art in", "Art", "x", subject_start=8).subject_end == 11


@pytest.mark.parametrize(("kwargs", "complaint"), [
    ({"target": " "}, "target is empty"),
    ({"subject": ""}, "subject is empty"),
    ({"subject": "Nobody"}, "'Nobody' is not in prompt"),
    ({"subject_start": 3}, "not at character 3"),
])
def test_unusable_requests_are_case_errors(kwargs, complaint):
    with pytest.raises(CaseError, match=complaint):
        EditRequest(**{"prompt": "Art met Bo in", "subject": "Art", "target": "Rome", **kwargs})


@pytest.mark.parametrize(("prompt", "subject"), [
    ("The birthplace of Budrer Drohemson is", "Budrer Drohemson"),
    ("Budrer Drohemson's employer is", "Budrer Drohemson"),
    ("As for Budrer Drohemson, the employer is", "Budrer Drohemson"),
    ("Who knows Zoë Ångström?", "Zoë Ångström"),
    ("Something about Budrer", "Budrer"),
    ("Budrer Drohemson plays", "Budrer Drohemson "),
    ("X", "X"),
])
def test_subject_index_is_the_last_token_that_holds_subject_text(tiny_gptj, prompt, subject):
    request = EditRequest(prompt, subject, "x")
    ids = tiny_gptj.encode(prompt).prompt
    index = tiny_gptj.subject_index(request)
    decode = tiny_gptj.tokenizer.decode
    assert decode(ids[: index + 1]).rstrip("\ufffd").startswith(prompt[: request.subject_end])
    assert not decode(ids[:index]).startswith(prompt[: request.subject_end])


def test_subject_index_follows_the_named_occurrence(tiny_gptj):
    prompt = "Art met Art in"
    first = tiny_gptj.subject_index(EditRequest(prompt, "Art", "x"))
    second = tiny_gptj.subject_index(EditRequest(prompt, "Art", "x", subject_start=8))
    assert first < second < len(tiny_gptj.encode(prompt).prompt) - 1
