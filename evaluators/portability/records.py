"""The edits to extend, each with its record as the file has it: COUNTERFACT's form, ZsRE's, or a built-in data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from editors.core.errors import InputError, first_problem
from editors.core.places import shown
from evaluators.cases import Case, Skipped
from evaluators.datasets import DatasetSpec, load_dataset
from evaluators.datasets.formats import name_of
from evaluators.datasets.forms import CounterfactEdit, ZsreEdit
from evaluators.datasets.loading import JUDGED
from evaluators.datasets.reading import Record, file_records

EditFormat = Literal["counterfact", "zsre"]


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

    format: EditFormat
    records: tuple[EditRecord, ...]
    skipped: tuple[Skipped, ...]


def read_source(source: str, limit: int | None = None) -> EditSource:
    """The first `limit` records of a file, or of a built-in data set by name.

    A record whose question, subject or altered answer is empty or unfit for a model is skipped. ZsRE's records have no
    ids: they are numbered from 0.
    Raises `InputError` for an unknown name, an unreadable file, a record that lacks a field, and an id that occurs
    twice.
    """
    if Path(source).suffix or Path(source).is_file():
        raw: list[Any] = []
        for record in islice(file_records(source), limit):
            if record.fault is not None:
                raise InputError(f"{shown(source)}: {record}: {record.fault}")
            raw.append(record.content)
        if not raw:
            raise InputError(f"{shown(source)}: expected COUNTERFACT or ZsRE records, and there are none")
    else:
        raw = [counterfact(case) for case in load_dataset(DatasetSpec(name=source, limit=limit)).cases]
    return _parsed(shown(source), raw, _format(raw[:JUDGED]))


def _format(raw: Sequence[Any]) -> EditFormat:
    """That of most of the records."""
    rewrites = sum(isinstance(item, dict) and "requested_rewrite" in item for item in raw)
    return "counterfact" if 2 * rewrites >= len(raw) else "zsre"


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


_FORMS: dict[EditFormat, type[CounterfactEdit] | type[ZsreEdit]] = {"counterfact": CounterfactEdit, "zsre": ZsreEdit}


def _parsed(source: str, raw: Sequence[Any], format: EditFormat) -> EditSource:
    """A record without a usable text is skipped; one of another form is an error."""
    records: dict[str, EditRecord] = {}
    skipped = []
    for place, item in enumerate(raw):
        name = str(place) if format == "zsre" else name_of(Record(place, None, item), format)
        try:
            found = _FORMS[format].model_validate(item)
        except ValidationError as error:
            if any(problem["type"] != "value_error" for problem in error.errors()):
                raise InputError(f"{source}: record {place} is not of {format}'s form: {first_problem(error)}"
                                 ) from error
            skipped.append(Skipped(case_id=name, reason=first_problem(error)))
            continue
        if name in records:
            raise InputError(f"{source}: record {place}: case_id {name} occurs twice")
        if isinstance(found, CounterfactEdit):
            edit = found.requested_rewrite
            question, subject, altered = found.prompt(edit.subject), edit.subject, edit.target_new.text
        else:
            question, subject, altered = found.src, found.subject, found.alt
        records[name] = EditRecord(name, question.strip(), subject.strip(), altered.strip(), item)
    return EditSource(format, tuple(records.values()), tuple(skipped))
