"""The records of COUNTERFACT, in its full and its flat form, and of ZsRE, and the case that each becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field

from editors.core.lookalikes import how_they_differ
from evaluators.cases import Case, Chain, Probe
from evaluators.datasets.fields import Malformed, Name, Optional, Part, Prompts, Text
from evaluators.datasets.spec import Generality, Target


class Paraphrases(NamedTuple):
    """A COUNTERFACT record's paraphrases, and the subject that they name."""

    subject: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What is read from the records: the switches of `DatasetSpec`, with the files that they name looked up."""

    target: Target = "alt"
    generality: Generality = "paraphrase_prompts"
    paraphrases: Mapping[str, Paraphrases] | None = None  # by case id
    snippets: Mapping[tuple[str, str], Sequence[str]] | None = None  # by relation and target


class _Answer(Part):
    text: Text = Field(alias="str")
    id: Optional | None = None


class _Rewrite(Part):
    prompt: Text
    subject: Text
    target_new: _Answer
    target_true: _Answer
    relation_id: Text | None = None


class CounterfactEdit(Part):
    """The edit alone of a COUNTERFACT record."""

    case_id: Name
    requested_rewrite: _Rewrite

    def prompt(self, subject: str) -> str:
        """The prompt about a subject, which takes the place of its first {}."""
        return self.requested_rewrite.prompt.replace("{}", subject, 1)


class ZsreEdit(Part):
    """The edit alone of a ZsRE record. It has no id."""

    subject: Text
    src: Text
    alt: Text


class _Portability(Part):
    question: Text = Field(alias="New Question")
    answer: Text = Field(alias="New Answer")
    recalled: Optional | None = Field(default=None, alias="Recalled Relation")

    def chain(self, subject: str, target: str) -> Chain:
        """The recalled fact is mostly about the new target, sometimes about the edit's subject."""
        recalled = self.recalled or ""
        about = subject if recalled.strip().removeprefix("(").startswith(f"{subject},") else target
        return Chain(prompt=self.question, target=self.answer, subject=subject, link=recalled_link(recalled, about))


class Counterfact(CounterfactEdit):
    """`attribute_prompts` are left out: they ask for other subjects' facts, of which MEMIT's evaluation makes no use
    either."""

    paraphrase_prompts: Prompts
    neighborhood_prompts: Prompts
    generation_prompts: Prompts = Field(default=[])
    portability: _Portability | None = None
    alternative_subject: Text | None = None

    def case(self, number: int, reading: Reading) -> Case:
        edit = self.requested_rewrite
        start = edit.prompt.find("{}")
        paraphrases = tuple(self.paraphrase_prompts)
        if reading.generality == "generation_prompts":
            if not self.generation_prompts:
                raise Malformed("generation_prompts: there are none, and 'generality' asks for them")
            # They repeat, as each is to be written on from again.
            paraphrases = tuple(dict.fromkeys(self.generation_prompts))
        return Case(
            id=str(self.case_id), subject=edit.subject, prompt=self.prompt(edit.subject),
            target_new=edit.target_new.text, target_true=edit.target_true.text, relation=edit.relation_id,
            subject_start=start if start >= 0 else None, paraphrases=paraphrases,
            neighbourhood=tuple(Probe(prompt=prompt, target=edit.target_true.text, relation=edit.relation_id)
                                for prompt in self.neighborhood_prompts),
            portability=tuple(self._chains()), generation_prompts=tuple(self.generation_prompts),
            references=tuple((reading.snippets or {}).get((edit.relation_id or "", edit.target_new.id or ""), ())))

    def _chains(self) -> Iterator[Chain]:
        edit, other = self.requested_rewrite, self.alternative_subject
        if self.portability:
            yield self.portability.chain(edit.subject, edit.target_new.text)
        if other is not None:
            if "{}" not in edit.prompt:
                raise Malformed("requested_rewrite.prompt: it has no {} for 'alternative_subject'")
            yield Chain(kind="subject", prompt=self.prompt(other), target=edit.target_new.text, subject=other,
                        relation=edit.relation_id)


class Flat(Part):
    case_id: Name
    prompt: Text
    subject: Text
    target_new: Text
    ground_truth: Text
    rephrase_prompt: Text | None = None
    locality_prompt: Text
    locality_ground_truth: Text
    portability: _Portability | None = None

    def case(self, number: int, reading: Reading) -> Case:
        return Case(
            id=str(self.case_id), subject=self.subject, prompt=self.prompt, target_new=self.target_new,
            target_true=self.ground_truth, paraphrases=self._paraphrases(reading.paraphrases),
            neighbourhood=(Probe(prompt=self.locality_prompt, target=self.locality_ground_truth),),
            portability=(self.portability.chain(self.subject, self.target_new),) if self.portability else ())

    def _paraphrases(self, known: Mapping[str, Paraphrases] | None) -> tuple[str, ...]:
        if known is None:
            return (self.rephrase_prompt,) if self.rephrase_prompt else ()
        if (found := known.get(str(self.case_id))) is None:
            raise Malformed(f"case_id: there is no {self.case_id} in the file that 'paraphrases' names")
        if found.subject != self.subject:
            alike = how_they_differ(self.subject, found.subject)
            raise Malformed(f"subject: case {self.case_id} is about '{found.subject}' in the file that 'paraphrases' "
                            f"names, not about '{self.subject}'{alike}")
        return found.texts


class Zsre(ZsreEdit):
    """`loc` keeps its "nq question: ", as in the evaluations of MEND, ROME and EasyEdit."""

    alt: Optional = ""  # where it is empty there is no edit
    rephrase: Text
    answers: list[Text] = Field(min_length=1)
    loc: Text | None = None
    loc_ans: Text | None = None
    portability: _Portability | None = None
    inverse_question: Text | None = Field(default=None, alias="inverse question")
    alternative_subject: Text | None = None
    alter_subject_question: Text | None = None

    def case(self, number: int, reading: Reading) -> Case:
        if (self.loc is None) != (self.loc_ans is None):
            raise Malformed("loc and loc_ans: one is there without the other")
        true, *also_true = self.answers
        new = self.alt if reading.target == "alt" else true
        unrelated = (Probe(prompt=self.loc, target=self.loc_ans),) if self.loc and self.loc_ans else ()
        case = Case(id=zsre_id(number), subject=self.subject, prompt=self.src, target_new=new,
                    paraphrases=(self.rephrase,), unrelated=unrelated,
                    portability=tuple(self._chains(new, asks_about_alt=reading.target == "alt")))
        if reading.target == "answers0":
            return case
        return case.model_copy(update={"target_true": true, "also_true": tuple(also_true)})

    def _chains(self, new: str, asks_about_alt: bool) -> Iterator[Chain]:
        """What follows from `alt` is asked only where that is the edit's target."""
        if self.portability and asks_about_alt:
            yield self.portability.chain(self.subject, self.alt)
        if self.inverse_question and asks_about_alt:
            yield Chain(kind="inverse", prompt=self.inverse_question, target=self.subject)
        if self.alter_subject_question:
            yield Chain(kind="subject", prompt=self.alter_subject_question, target=new,
                        subject=self.alternative_subject)


def zsre_id(number: int) -> str:
    return f"zsre-{number}"


def recalled_link(triple: str, subject: str) -> Probe | None:
    """The probe for a fact written "(s, r, o)": `s r`, then o. `subject` is the likely s, which may hold commas.

    None where the text is no such triple.
    """
    inner = triple.strip().removeprefix("(").removesuffix(")")
    first, rest = (subject, inner[len(subject) + 1:]) if inner.startswith(f"{subject},") else _cut(inner)
    relation, answer = _cut(rest)
    if not (first and relation and answer):
        return None
    return Probe(prompt=f"{first} {relation}", target=answer, subject=first)


def _cut(text: str) -> tuple[str, str]:
    before, _, after = text.partition(",")
    return before.strip(), after.strip()
