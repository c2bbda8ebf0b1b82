"""Free answers instead of teacher-forced ones: asked of many cases at once, cut at their end, compared as people would.

Teacher forcing shows a model the answer's length and its first tokens; what it says on its own is often another matter
(Yang et al. 2025, "The Mirage of Model Editing"; METHODS 10.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from editors.core.models.batches import Encoded
from editors.core.models.model import LanguageModel
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Patch
from evaluators.cases import Case, ProbeKey, ask
from evaluators.scoring.answers import cut
from evaluators.scoring.decoding import Decoding, generate
from evaluators.scoring.measures import GENERATED, Generation
from evaluators.scoring.observe import Observation

BATCH_ROWS = {"cpu": 64, "cuda": 256}


class _Question(NamedTuple):
    patch: int
    prompt: Encoded
    target: str


def with_answers(model: LanguageModel, cases: Sequence[Case], observations: Sequence[Observation],
                 patches: Sequence[Patch], rows: Sequence[int], how: Generation) -> list[Observation]:
    """The observations of the cases, with what the model writes under `patches[rows[i]]` (-1: unedited) as the `text`
    of each rewrite, paraphrase, neighbourhood and portability probe. Equal questions are asked once.

    Raises `CaseError` where a prompt cannot be encoded.
    """
    questions = [{key: _Question(row, model.encode(how.template.replace("{prompt}", prompt)), target.strip())
                  for key, prompt, target in ask(case) if key.role in GENERATED and key.which == "answer"}
                 for case, row in zip(cases, rows, strict=True)]
    texts = _answers(model, {question for each in questions for question in each.values()}, patches, how)
    return [_with_texts(observation, {key: texts[question] for key, question in each.items()})
            for observation, each in zip(observations, questions, strict=True)]


def _with_texts(observation: Observation, texts: dict[ProbeKey, str]) -> Observation:
    outputs = {key: replace(outputs, text=texts.get(key)) for key, outputs in observation.outputs.items()}
    return Observation(observation.case_id, outputs)


def _answers(model: LanguageModel, questions: set[_Question], patches: Sequence[Patch],
             how: Generation) -> dict[_Question, str]:
    decoding = Decoding(how.tokens, how.stop)
    answers: dict[_Question, str] = {}
    for batch in _batches(questions, BATCH_ROWS.get(model.device.type, BATCH_ROWS["cpu"])):
        with overlay(model, patches, [question.patch for question in batch]):
            texts = generate(model, [question.prompt for question in batch], decoding,
                             [len(question.target) for question in batch])
        answers |= {question: cut(text, question.target, how.stop)
                    for question, text in zip(batch, texts, strict=True)}
    return answers


def _batches(questions: set[_Question], size: int) -> Iterator[list[_Question]]:
    """Prompts of similar length together, those of one patch side by side."""
    ordered = sorted(questions, key=lambda question: (len(question.prompt), question.patch, question.prompt.prompt,
                                                      question.target))
    for start in range(0, len(ordered), size):
        yield ordered[start: start + size]
