"""Free answers instead of teacher-forced ones: asked of many cases at once, cut at their end, compared as people would.

Teacher forcing shows a model the answer's length and its first tokens; what it says on its own is often another matter
(Yang et al. 2025, "The Mirage of Model Editing", section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, NamedTuple

from pydantic import PositiveInt, field_validator

from evaluators.cases import Case, Role, ask
from evaluators.scoring.answers import cut, stops
from evaluators.scoring.measures.base import Measure
from evaluators.scoring.metrics import Metric

if TYPE_CHECKING:
    from editors.core.models.batches import Encoded
    from editors.core.models.model import LanguageModel
    from editors.core.patches.patch import Patch
    from evaluators.scoring.observe import Observation

GENERATED: tuple[Role, ...] = ("rewrite", "paraphrase", "neighbourhood", "portability")
BATCH_ROWS = {"cpu": 64, "cuda": 256}
TOKENS = 5  # read for each token that an answer may be long, all questions of a case together; measured


class Generation(Measure):
    """Free greedy answers to the edit's own questions and to its neighbours'."""

    name = "generation"
    version = 2
    of_baseline = True
    metrics = (
        *(Metric(f"{what}.generation", "what the model writes freely, up to a stop, is the target (but for case, "
                                       "punctuation, articles)", version=2)
          for what in ("reliability", "generality", "portability", "portability.all", "portability.inverse",
                       "portability.subject")),
        Metric("locality.generation", "what the model writes freely about neighbours is what it wrote unedited",
               version=2))

    tokens: PositiveInt = 50
    """Most tokens of an answer. Ours."""
    stop: tuple[str, ...] = (".", "\n")
    """Texts that end an answer; where the target has some itself, as in "St. Louis" or "Acme Inc.", an answer may go on
    past as many to be the target (Yang et al. 2025 stop at the end of a sentence)."""
    template: str = "{prompt}"
    """The text that is asked, with `{prompt}` where a question goes, such as `Q: {prompt}\\nA:`."""

    @field_validator("template")
    @classmethod
    def _has_a_prompt(cls, template: str) -> str:
        if template.count("{prompt}") != 1:
            raise ValueError(f"template '{template}' must hold {{prompt}} once, such as 'Q: {{prompt}}\\nA:'")
        return template

    @field_validator("stop")
    @classmethod
    def _stops(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("an empty stop text would end every answer before its first word; leave it out")
        return stop

    @property
    def tokens_asked(self) -> float:
        return TOKENS * self.tokens

    def prompts(self, case: Case) -> list[str]:
        return [self._asked(prompt) for key, prompt, _ in ask(case) if key.role in GENERATED and key.which == "answer"]

    def _asked(self, prompt: str) -> str:
        return self.template.replace("{prompt}", prompt)

    def observe(self, model: LanguageModel, cases: Sequence[Case], observations: Sequence[Observation],
                patches: Sequence[Patch], rows: Sequence[int]) -> list[Observation]:
        """Has what the model writes as the `text` of each `GENERATED` probe; equal questions are asked once.

        Raises `CaseError` where a prompt cannot be encoded.
        """
        questions = [{key: _Question(row, model.encode(self._asked(prompt)), target.strip())
                      for key, prompt, target in ask(case) if key.role in GENERATED and key.which == "answer"}
                     for case, row in zip(cases, rows, strict=True)]
        texts = self._answers(model, {question for each in questions for question in each.values()}, patches)
        return [replace(observation, outputs={
                    key: replace(outputs, text=texts[each[key]] if key in each else None)
                    for key, outputs in observation.outputs.items()})
                for observation, each in zip(observations, questions, strict=True)]

    def _answers(self, model: LanguageModel, questions: set[_Question],
                 patches: Sequence[Patch]) -> dict[_Question, str]:
        from editors.core.patches.overlay import overlay
        from evaluators.scoring.decoding import Decoding, generate

        decoding = Decoding(self.tokens, self.stop)
        answers: dict[_Question, str] = {}
        # Prompts of similar length together, those of one patch side by side; none beside one that has another room.
        ordered = sorted(questions, key=lambda question: (len(question.prompt), question.patch, question.prompt.prompt,
                                                          question.target))
        most = BATCH_ROWS.get(model.device.type, BATCH_ROWS["cpu"])
        longest = max((len(question.prompt) for question in ordered), default=0)
        size = model.at_once(most, decoding.nbytes(model, longest))
        for _, alike in groupby(ordered, lambda question: decoding.room(model, question.prompt)):
            while batch := list(islice(alike, size)):
                with overlay(model, patches, [question.patch for question in batch]):
                    texts = generate(model, [question.prompt for question in batch], decoding,
                                     [len(stops(question.target, self.stop)) for question in batch])
                answers |= {question: cut(text, question.target, self.stop)
                            for question, text in zip(batch, texts, strict=True)}
        return answers


class _Question(NamedTuple):
    patch: int
    prompt: Encoded
    target: str
