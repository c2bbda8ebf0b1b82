"""The records of KnowEdit (Zhang et al. 2024, "A Comprehensive Study of Knowledge Editing for Large Language Models"),
in the forms of its files: ZsRE, wiki_recent, wiki_counterfact and WikiBio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from editors.core.errors import spelt
from evaluators.cases import Case, Chain, Probe
from evaluators.datasets.fields import Part, Text
from evaluators.datasets.forms import Reading


def _flat(texts: Any) -> list[Any]:
    """All texts, however they are nested, without empty ones."""
    if isinstance(texts, list):
        return [text for inner in texts for text in _flat(inner)]
    return [] if isinstance(texts, str) and not texts.strip() else [texts]


def _alone(text: Any) -> Any:
    """The one text of a list of one."""
    return text[0] if isinstance(text, list) and len(text) == 1 else text


# A text, a list of them, or of answers each with all of its names: the first of the first is asked for.
Texts = Annotated[list[Text], BeforeValidator(_flat)]
Alone = Annotated[Text, BeforeValidator(_alone)]


def is_knowedit(record: Mapping[str, Any]) -> bool:
    """Whether a record asks for portability or locality by kind, or has true answers in a list, as no other format
    does."""
    if not ({"prompt", "subject", "target_new"} <= record.keys() or {"text", "concept", "labels"} <= record.keys()):
        return False
    portability = record.get("portability")
    return (isinstance(record.get("locality"), dict) or isinstance(record.get("ground_truth"), list)
            or (isinstance(portability, dict) and "New Question" not in portability))


def knowedit_id(number: int) -> str:
    return f"knowedit-{number}"


class _Question(Part):
    prompt: Alone
    ground_truth: Texts = Field(default=[])


Questions = list[_Question]


class _ByKind(Part):
    @model_validator(mode="before")
    @classmethod
    def _of_known_kinds(cls, content: Any) -> Any:
        known = [str(field.alias) for field in cls.model_fields.values()]
        for kind, questions in content.items() if isinstance(content, dict) else ():
            if questions and kind not in known:
                raise ValueError(f"questions of kind {spelt(kind)} are not read, but {', '.join(known)}")
        return content


class _Portability(_ByKind):
    reasoning: Questions = Field(default=[], alias="Reasoning")
    logical: Questions = Field(default=[], alias="Logical_Generalization")
    aliasing: Questions = Field(default=[], alias="Subject_Aliasing")

    def chains(self) -> Iterator[Chain]:
        yield from (Chain(kind="hop", prompt=prompt, target=target) for prompt, target in _asked(self.reasoning))
        yield from (Chain(kind="logical", prompt=prompt, target=target) for prompt, target in _asked(self.logical))
        yield from (Chain(kind="subject", prompt=prompt, target=target) for prompt, target in _asked(self.aliasing))


class _Locality(_ByKind):
    specificity: Questions = Field(default=[], alias="Relation_Specificity")
    forgetfulness: Questions = Field(default=[], alias="Forgetfulness")


class KnowEdit(Part):
    """An edit with its questions by kind; kinds may be missing or empty. WikiBio's edits write a `text` on with
    `labels`, about a `concept`."""

    subject: Alone = Field(validation_alias=AliasChoices("subject", "concept"))
    prompt: Alone = Field(validation_alias=AliasChoices("prompt", "text"))
    target_new: Alone = Field(validation_alias=AliasChoices("target_new", "labels"))
    ground_truth: Texts = Field(default=[])
    rephrase: Texts = Field(default=[], validation_alias=AliasChoices("rephrase_prompt", "rephrase"))
    portability: _Portability = _Portability()
    locality: _Locality = _Locality()

    def case(self, number: int, reading: Reading) -> Case:
        true = self.ground_truth
        return Case(
            id=knowedit_id(number), subject=self.subject, prompt=self.prompt, target_new=self.target_new,
            target_true=true[0] if true else None, also_true=tuple(true[1:]), paraphrases=tuple(self.rephrase),
            portability=tuple(self.portability.chains()),
            attributes=_probes(self.locality.specificity), forgetfulness=_probes(self.locality.forgetfulness))


def _probes(questions: Questions) -> tuple[Probe, ...]:
    return tuple(Probe(prompt=prompt, target=target) for prompt, target in _asked(questions))


def _asked(questions: Questions) -> Iterator[tuple[str, str]]:
    """Prompts and answers; without an answer there is nothing to ask."""
    return ((question.prompt, question.ground_truth[0]) for question in questions if question.ground_truth)
