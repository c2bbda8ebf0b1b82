"""The edits to extend, each with its record as the file has it: COUNTERFACT's form, ZsRE's, or a built-in data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editors.core.errors import InputError
from evaluators.cases import Case, Skipped
from evaluators.datasets import DatasetSpec, load_dataset
from evaluators.datasets.reading import Record, file_records

Form = Literal["counterfact", "zsre"]


@dataclass(frozen=True)
class EditRecord:
    """An edit: the answer to `question` about `subject` becomes `altered`. `raw` is the whole record it stands in."""

    id: str
    question: str
    subject: str
    altered: str
    raw: dict[str, Any]


@dataclass(frozen=True)
class EditSource:
    """Records in file order, and those of which nothing can be asked."""

    form: Form
    records: tuple[EditRecord, ...]
    skipped: tuple[Skipped, ...]


def read_source(source: str, limit: int | None = None) -> EditSource:
    """The first `limit` records of a file, or of a built-in data set by name.

    A record without a subject or an altered answer is skipped. ZsRE's records have no ids: they are numbered from 0.
    Raises `InputError` for an unknown name, an unreadable file, a record that lacks a field, and an id that occurs
    twice.
    """
    if Path(source).suffix or Path(source).is_file():
        raw = [_content(record, source) for record in islice(file_records(source), limit)]
        if not raw:
            raise InputError(f"{source}: expected COUNTERFACT or ZsRE records, and there are none")
    else:
        raw = [counterfact(case) for case in load_dataset(DatasetSpec(name=source, limit=limit)).cases]
    form: Form = "counterfact" if isinstance(raw[0], dict) and "requested_rewrite" in raw[0] else "zsre"
    records = list(_parsed(source, raw, form))
    skipped = [Skipped(case_id=record.id, reason=reason) for record in records if (reason := _problem(record))]
    unusable = {skip.case_id for skip in skipped}
    return EditSource(form, tuple(record for record in records if record.id not in unusable), tuple(skipped))


def _content(record: Record, source: str) -> Any:
    if record.fault is not None:
        raise InputError(f"{source}: {record}: {record.fault}")
    return record.content


def counterfact(case: Case) -> dict[str, Any]:
    """A case in COUNTERFACT's form, whose neighbours all have the true answer: others are left out, and so is all
    that the form has no place for."""
    if case.target_true is None:
        raise InputError(f"case '{case.id}' has no true answer, which COUNTERFACT's form needs")
    start = case.prompt.index(case.subject) if case.subject_start is None else case.subject_start
    return {
        "case_id": case.id,
        "requested_rewrite": {
            "prompt": f"{case.prompt[:start]}{{}}{case.prompt[start + len(case.subject):]}",
            "relation_id": case.relation, "target_new": {"str": case.target_new},
            "target_true": {"str": case.target_true}, "subject": case.subject},
        "paraphrase_prompts": list(case.paraphrases),
        "neighborhood_prompts": [probe.prompt for probe in case.neighbourhood if probe.target == case.target_true],
        "attribute_prompts": [], "generation_prompts": list(case.generation_prompts)}


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Answer(_Part):
    text: str = Field(alias="str")


class _Rewrite(_Part):
    prompt: str
    subject: str
    target_new: _Answer


class _Counterfact(_Part):
    case_id: int | str
    requested_rewrite: _Rewrite

    def record(self, raw: dict[str, Any], place: int) -> EditRecord:
        edit = self.requested_rewrite
        return EditRecord(str(self.case_id), edit.prompt.replace("{}", edit.subject, 1).strip(), edit.subject.strip(),
                          edit.target_new.text.strip(), raw)


class _Zsre(_Part):
    src: str
    subject: str
    alt: str

    def record(self, raw: dict[str, Any], place: int) -> EditRecord:
        return EditRecord(str(place), self.src.strip(), self.subject.strip(), self.alt.strip(), raw)


_FORMS: dict[Form, type[_Counterfact] | type[_Zsre]] = {"counterfact": _Counterfact, "zsre": _Zsre}


def _parsed(source: str, raw: Sequence[Any], form: Form) -> Iterable[EditRecord]:
    seen = set()
    for place, item in enumerate(raw):
        try:
            record = _FORMS[form].model_validate(item).record(item, place)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise InputError(f"{source}: record {place} is not of {form}'s form: {where}: {problem['msg']}") from error
        if record.id in seen:
            raise InputError(f"{source}: record {place}: case_id {record.id} occurs twice")
        seen.add(record.id)
        yield record


def _problem(record: EditRecord) -> str | None:
    empty = [what for what, text in (("question", record.question), ("subject", record.subject),
                                     ("altered answer", record.altered)) if not text]
    return f"the {empty[0]} is empty" if empty else None
