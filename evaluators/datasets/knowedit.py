"""The records of KnowEdit (Zhang et al. 2024, "A Comprehensive Study of Knowledge Editing for Large Language Models"),
in the forms of its files: ZsRE, wiki_recent, wiki_counterfact and WikiBio."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import AliasChoices, Field

from evaluators.cases import Case, Chain, Probe
from evaluators.datasets.fields import Part, Text
from evaluators.datasets.forms import Reading

# An answer, a list of them, or a list of answers each with all of its names: the first of the first is asked for.
Answers = Text | list[Text] | list[list[Text]]


def is_knowedit(record: Mapping[str, Any]) -> bool:
    """Whether a record asks for portability or locality by kind, as no other format does."""
    if not ({"prompt", "subject", "target_new"} <= record.keys() or {"text", "concept", "labels"} <= record.keys()):
        return False
    portability = record.get("portability")
    return isinstance(record.get("locality"), dict) or (isinstance(portability, dict)
                                                        and "New Question" not in portability)


def knowedit_id(number: int) -> str:
    return f"knowedit-{number}"


class _Question(Part):
    prompt: Text
    ground_truth: Answers

    @property
    def answer(self) -> str | None:
        """None where the list of answers is empty: then there is nothing to ask."""
        return next(iter(_names(self.ground_truth)), None)


Questions = list[_Question]


class _Portability(Part):
    reasoning: Questions = Field(default=[], alias="Reasoning")
    logical: Questions = Field(default=[], alias="Logical_Generalization")
    aliasing: Questions = Field(default=[], alias="Subject_Aliasing")

    def chains(self) -> Iterator[Chain]:
        yield from (Chain(kind="hop", prompt=prompt, target=target) for prompt, target in _asked(self.reasoning))
        yield from (Chain(kind="logical", prompt=prompt, target=target) for prompt, target in _asked(self.logical))
        yield from (Chain(kind="subject", prompt=prompt, target=target) for prompt, target in _asked(self.aliasing))


class _Locality(Part):
    specificity: Questions = Field(default=[], alias="Relation_Specificity")
    forgetfulness: Questions = Field(default=[], alias="Forgetfulness")


class KnowEdit(Part):
    """An edit with its questions by kind; kinds may be missing or empty. WikiBio's edits write a `text` on with
    `labels`, about a `concept`."""

    subject: Text = Field(validation_alias=AliasChoices("subject", "concept"))
    prompt: Text = Field(validation_alias=AliasChoices("prompt", "text"))
    target_new: Text = Field(validation_alias=AliasChoices("target_new", "labels"))
    ground_truth: Answers = Field(default=[])
    rephrase: Text | None = Field(default=None, validation_alias=AliasChoices("rephrase_prompt", "rephrase"))
    portability: _Portability = _Portability()
    locality: _Locality = _Locality()

    def case(self, number: int, reading: Reading) -> Case:
        true = list(_names(self.ground_truth))
        return Case(
            id=knowedit_id(number), subject=self.subject, prompt=self.prompt, target_new=self.target_new,
            target_true=true[0] if true else None, also_true=tuple(true[1:]),
            paraphrases=(self.rephrase,) if self.rephrase else (), portability=tuple(self.portability.chains()),
            attributes=_probes(self.locality.specificity), forgetfulness=_probes(self.locality.forgetfulness))


def _probes(questions: Questions) -> tuple[Probe, ...]:
    return tuple(Probe(prompt=prompt, target=target) for prompt, target in _asked(questions))


def _asked(questions: Questions) -> Iterator[tuple[str, str]]:
    return ((question.prompt, question.answer) for question in questions if question.answer is not None)


def _names(answers: str | Iterable[str | Iterable[str]]) -> Iterator[str]:
    """All answers, however they are nested."""
    if isinstance(answers, str):
        yield answers
        return
    for answer in answers:
        yield from _names(answer)
