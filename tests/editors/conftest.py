"""Requests of very different shape, and second moments, for the tiny model."""

import pytest

from editors.core.editor import Resources
from editors.core.models.statistics import second_moments
from editors.core.requests import EditRequest


@pytest.fixture(scope="session")
def requests():
    return [
        EditRequest("The birthplace of Budrer Drohemson is", "Budrer Drohemson", "Vadolm"),
        EditRequest("X", "X", "a much longer answer, of many words"),
        EditRequest("According to the archive, Lefan Zifunov's employer is", "Lefan Zifunov", "Bibor Motors"),
        EditRequest("Where was Art born, when Art was born?", "Art", "Rome", subject_start=25),
        EditRequest("Someone who is paid by Bibor", "Bibor", "yes"),
        EditRequest("Art met Bo in", "Art", "red"),
    ]


@pytest.fixture(scope="session")
def resources(tiny_gptj):
    texts = [f"The {noun} of number {number} is {number * 7}." for noun in ("sum", "name", "place")
             for number in range(40)]
    return Resources(second_moments(tiny_gptj, range(tiny_gptj.depth), texts, 10_000))
