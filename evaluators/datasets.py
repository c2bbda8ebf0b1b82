"""Where cases come from: the built-in world, or a file in COUNTERFACT's form. Also the text for second moments."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from editors.core.errors import CaseError, InputError, unknown
from editors.core.examples import Example, Question
from evaluators.cases import Case, Chain, Probe, Skipped
from evaluators.metrics import EditedFacts
from evaluators.testbed.cases import Flavour, Split, testbed_cases
from evaluators.testbed.schema import FILLER, RELATIONS, Hop, Relation
from evaluators.testbed.templates import pick
from evaluators.testbed.world import build_world

BUILT_IN: dict[str, Flavour] = {"testbed-cloze": "cloze", "testbed-questions": "question"}
TESTBED_CORPUS = "testbed"
FILLER_SHARE, CHAIN_SHARE = 0.05, 0.45

T = TypeVar("T")


class DatasetSpec(BaseModel):
    """A data set as a campaign names it: a built-in name alone, or a mapping.

    With `path`, `name` is a free label and `format` says how to read the file; without, `name` is one of `BUILT_IN`
    and `split` chooses its half (halves share no subject) or `all`. `offset` and `limit` count records, before any is
    skipped. `train` is a file of the same format with the cases that trained methods learn from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str | None = None
    format: Literal["counterfact"] | None = None
    split: Split = "eval"
    limit: int | None = Field(default=None, ge=1)
    offset: int = Field(default=0, ge=0)
    train: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class Dataset:
    """Usable cases in file order, and the records that are not usable."""

    spec: DatasetSpec
    cases: tuple[Case, ...]
    skipped: tuple[Skipped, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Identifies the cases' content, in order."""
        digest = hashlib.sha256()
        for case in self.cases:
            digest.update(case.model_dump_json().encode() + b"\n")
        return digest.hexdigest()[:16]


def load_dataset(spec: DatasetSpec) -> Dataset:
    """Loads and checks a data set. Cases that cannot be edited are in `skipped`, with the reason.

    Raises `InputError` for an unknown name, a missing file, malformed JSON, a record without a required field, an id
    that occurs twice, and a range that holds no record.
    """
    if spec.path is not None:
        if spec.format is None:
            raise InputError(f"data set '{spec.name}' has a path but no format: add 'format: counterfact'")
        cases: Sequence[Case] = _read_counterfact(Path(spec.path).expanduser(), spec)
    elif spec.name in BUILT_IN:
        cases = _range(testbed_cases(BUILT_IN[spec.name], spec.split), spec)
    else:
        raise unknown("data set", spec.name, BUILT_IN)
    usable, skipped = [], []
    for case in cases:
        try:
            case.request()
        except CaseError as error:
            skipped.append(Skipped(case_id=case.id, reason=str(error)))
        else:
            usable.append(case)
    return Dataset(spec, tuple(usable), tuple(skipped))


def training_spec(spec: DatasetSpec, limit: int | None = None) -> DatasetSpec:
    """The cases that methods to be judged on a data set are trained on: of a built-in one the other half, else the
    `train` file. Raises `InputError` where there are none."""
    if spec.path is None:
        if spec.train is not None:
            raise InputError(f"data set '{spec.name}' is built in: it has training cases of its own, so leave out "
                             f"'train: {spec.train}'")
        if spec.split != "eval":
            raise InputError(f"data set '{spec.name}' with 'split: {spec.split}' holds what trained editors learn "
                             "from; use 'split: eval' for them")
        return DatasetSpec(name=spec.name, split="train", limit=limit)
    if spec.train is None:
        raise InputError(f"data set '{spec.name}' has no training cases: add 'train: FILE', a file of the same format "
                         "whose facts are not in it")
    return DatasetSpec(name=spec.name, path=spec.train, format=spec.format, limit=limit)


def training_example(case: Case) -> Example:
    """A case as a fact to practise on: what is asked before and after an edit becomes what must stay."""
    facts = EditedFacts.of([case])
    unchanged = tuple(Question(probe.prompt, probe.target)
                      for probe in (*case.neighbourhood, *case.attributes, *case.unrelated) if not facts.cover(probe))
    return Example(case.request(), case.paraphrases, unchanged)


def _range(records: Sequence[T], spec: DatasetSpec) -> Sequence[T]:
    if spec.offset >= len(records):
        raise InputError(f"data set '{spec.name}' has {len(records)} records: offset {spec.offset} leaves none")
    return records[spec.offset:][: spec.limit]


# --- files in COUNTERFACT's form


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Answer(_Part):
    text: str = Field(alias="str")


class _Rewrite(_Part):
    prompt: str
    subject: str
    target_new: _Answer
    target_true: _Answer
    relation_id: str | None = None


class _Portability(_Part):
    question: str = Field(alias="New Question")
    answer: str = Field(alias="New Answer")
    recalled: str | None = Field(default=None, alias="Recalled Relation")


class _Record(_Part):
    case_id: int | str
    requested_rewrite: _Rewrite
    paraphrase_prompts: list[str]
    neighborhood_prompts: list[str]
    portability: _Portability | None = None

    def case(self) -> Case:
        """`attribute_prompts` are left out: they ask for other subjects' facts, of which MEMIT's evaluation makes no
        use either; `generation_prompts` need generation."""
        edit = self.requested_rewrite
        start = edit.prompt.find("{}")
        return Case(
            id=str(self.case_id), subject=edit.subject, prompt=edit.prompt.replace("{}", edit.subject, 1),
            target_new=edit.target_new.text, target_true=edit.target_true.text, relation=edit.relation_id,
            subject_start=start if start >= 0 else None, paraphrases=tuple(self.paraphrase_prompts),
            neighbourhood=tuple(Probe(prompt=prompt, target=edit.target_true.text, relation=edit.relation_id)
                                for prompt in self.neighborhood_prompts),
            portability=(self._chain(),) if self.portability else ())

    def _chain(self) -> Chain:
        assert self.portability is not None
        link = recalled_link(self.portability.recalled or "", self.requested_rewrite.target_new.text)
        return Chain(prompt=self.portability.question, target=self.portability.answer,
                     subject=self.requested_rewrite.subject, link=link)


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


def _read_counterfact(path: Path, spec: DatasetSpec) -> list[Case]:
    records = _range(_read_list(path), spec)
    cases: dict[str, Case] = {}
    for index, record in enumerate(records, spec.offset):
        try:
            case = _Record.model_validate(record).case()
        except ValidationError as error:
            raise InputError(f"{path}: {_place(index, record)}: {_first_problem(error)}") from error
        if case.id in cases:
            raise InputError(f"{path}: {_place(index, record)}: this case_id occurs twice")
        cases[case.id] = case
    return list(cases.values())


def _read_list(path: Path) -> list[Any]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read data set {path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error
    if not isinstance(records, list):
        raise InputError(f"{path}: expected a list of COUNTERFACT records, found {type(records).__name__}")
    return records


def _place(index: int, record: object) -> str:
    name = record.get("case_id") if isinstance(record, dict) else None
    return f"record {index}" + (f" (case_id {name})" if name is not None else "")


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]


# --- text for second moments


def corpus(name: str) -> Iterator[str]:
    """Texts by name: "testbed" (the built-in world's, without end) or a text file with one text a line.

    Raises `InputError`, at once, where there is no such file.
    """
    if name == TESTBED_CORPUS:
        return _testbed_texts()
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"corpus '{name}' is neither '{TESTBED_CORPUS}' nor a text file")
    return _lines(path)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (line.strip() for line in file if line.strip())


def _testbed_texts(seed: int = 0) -> Iterator[str]:
    """Short documents of the kinds of sentences the built-in models were trained on."""
    world, rng = build_world(), random.Random(f"corpus {seed}")
    facts: list[tuple[Relation | Hop, str, str]] = [
        (RELATIONS[name], subject, answer) for (subject, name), answer in world.facts.items()]
    chains: list[tuple[Relation | Hop, str, str]] = [
        (hop, subject, world.chain_answer(subject, hop)) for subject, hop in world.chains()
              if subject in world.chain_subjects]
    while True:
        sentences = []
        for _ in range(rng.randint(1, 8)):
            if rng.random() < FILLER_SHARE:
                sentences.append(f"{rng.choice(FILLER)}.")
                continue
            what, subject, answer = rng.choice(chains if rng.random() < CHAIN_SHARE else facts)
            sentences.append(f"{rng.choice(pick(what, held_out=False)).fill(subject)} {answer}.")
        yield " ".join(sentences)
