"""What a language model is asked about an edit, and which of its answers are of use (Yao et al. 2023, table 6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from editors.core.errors import CaseError
from evaluators.cases import Probe
from evaluators.datasets import recalled_link
from evaluators.portability.records import EditRecord
from evaluators.texts import bare_words

VERSION = 1  # of the prompt's text
INSTRUCTION = """\
A fact about the Subject has been changed: from now on, the Altered Answer is the answer to the Question. Whoever \
takes this to be true can draw conclusions from it. Find one of them, in three steps.

1. Recalled Relation: one true and well-known fact about the Altered Answer, as (Altered Answer, relation, other \
thing). Word the relation so that the three parts, read one after the other, make a sentence.
2. New Question: a question about the Subject that the other thing answers, now that the fact has been changed. It \
names the Subject, and neither the Altered Answer nor the other thing.
3. New Answer: the other thing, as short as it can be said.

Reply with these three lines and nothing else, as in the examples."""
EXAMPLES = (
    ("Lake Titicaca is located in", "Lake Titicaca", "Kenya",
     "(Kenya, has as its capital the city of, Nairobi)",
     "What is the capital of the country in which Lake Titicaca lies?", "Nairobi"),
    ("Which company makes the Vespa?", "Vespa", "Volvo",
     "(Volvo, has its headquarters in, Gothenburg)",
     "In which city are the headquarters of the company that makes the Vespa?", "Gothenburg"),
    ("The novel The Leopard was written by", "The Leopard", "Selma Lagerlöf",
     "(Selma Lagerlöf, was born in the country of, Sweden)",
     "In which country was the author of The Leopard born?", "Sweden"),
    ("What instrument did Clara Haskil play?", "Clara Haskil", "cello",
     "(cello, belongs to the family of, string instruments)",
     "Which family of instruments does the one that Clara Haskil played belong to?", "String instruments"),
)

Fault = Literal["no text", "cut off", "not in form", "no triple", "altered answer not in triple",
                "new answer not in triple", "new answer is the altered answer", "subject not in question",
                "altered answer in question", "new answer in question"]


class BadAnswer(CaseError):
    """An answer that makes no portability question; `fault` is its kind, to be counted."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}" if detail else fault)
        self.fault = fault


@dataclass(frozen=True)
class Suggestion:
    """A linked fact and a question that takes it; `link` asks for the fact alone.

    `altered_is` tells which end of the triple the altered answer is.
    """

    triple: str
    question: str
    answer: str
    link: Probe
    altered_is: Literal["head", "tail"]


def prompt(record: EditRecord) -> str:
    """The instruction, the examples and the record, as one message: not every endpoint knows system messages."""
    shown = [f"{_asked(*about)}\nRecalled Relation: {triple}\nNew Question: {question}\nNew Answer: {answer}"
             for *about, triple, question, answer in EXAMPLES]
    return "\n\n".join([INSTRUCTION, *shown, _asked(record.question, record.subject, record.altered)])


def _asked(question: str, subject: str, altered: str) -> str:
    return "\n".join(f"{name}: {' '.join(text.split())}" for name, text in (
        ("Question", question), ("Subject", subject), ("Altered Answer", altered)))


_FIELD = re.compile(r"^[\s\d.*#>`_-]*(recalled relation|new question|new answer)[\s*`_]*:(.*)$", re.I | re.M)
_DRESS = " \t\r*`"  # around a field's text: Markdown's emphasis and code


def parse(text: str, record: EditRecord) -> Suggestion:
    """A model's answer as a suggestion. Raises `BadAnswer` where it is none.

    The altered answer may be either end of the triple, and the new answer has to be the other one: names agree when
    the words of one are in the other. A question that names the new answer gives it away, and one that names the
    altered answer, or not the subject, can be answered without the edit.
    """
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(text):
        if fields.setdefault(name.lower(), value.strip(_DRESS)) != value.strip(_DRESS):
            raise BadAnswer("not in form", f"more than one '{name}'")
    if missing := [name for name in ("recalled relation", "new question", "new answer") if not fields.get(name)]:
        raise BadAnswer("not in form", f"no '{missing[0]}'")
    triple, question, answer = (fields[name] for name in ("recalled relation", "new question", "new answer"))
    return _checked(triple.rstrip(".").rstrip(), question, answer, record)


def _checked(triple: str, question: str, answer: str, record: EditRecord) -> Suggestion:
    link = recalled_link(triple, record.altered) if re.fullmatch(r"\(.*\)", triple) else None
    if link is None or link.subject is None:
        raise BadAnswer("no triple", f"'{triple}' is not '(head, relation, tail)'")
    altered_is: Literal["head", "tail"] = "head" if _agree(link.subject, record.altered) else "tail"
    other = link.target if altered_is == "head" else link.subject
    if altered_is == "tail" and not _agree(link.target, record.altered):
        raise BadAnswer("altered answer not in triple", f"'{record.altered}' is at neither end of {triple}")
    if not _agree(other, answer):
        raise BadAnswer("new answer not in triple", f"'{answer}' is not '{other}'")
    if bare_words(answer) == bare_words(record.altered):
        raise BadAnswer("new answer is the altered answer", f"'{answer}'")
    if not _within(record.subject, question):
        raise BadAnswer("subject not in question", f"'{record.subject}' is not in '{question}'")
    asked = bare_words(question).replace(bare_words(record.subject), " ", 1)  # a subject's own words give nothing away
    given_away: tuple[tuple[Fault, str], ...] = (
        ("altered answer in question", record.altered), ("new answer in question", answer))
    for fault, name in given_away:
        if bare_words(name) in asked:
            raise BadAnswer(fault, f"'{name}' is in '{question}'")
    return Suggestion(triple, question, answer, link, altered_is)


def _within(part: str, whole: str) -> bool:
    return bool(bare_words(part).strip()) and bare_words(part) in bare_words(whole)


def _agree(one: str, other: str) -> bool:
    return _within(one, other) or _within(other, one)
