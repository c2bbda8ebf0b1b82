"""What records of each format look like, and how one becomes a case."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import ValidationError

from editors.core.errors import InputError, first_problem, spelt, unknown
from evaluators.cases import Case, Chain, Probe
from evaluators.datasets.fields import (
    Malformed,
    says_nothing,
    stated,
    texts_in,
    that_say_something,
    unfit,
    without_nulls,
)
from evaluators.datasets.forms import Counterfact, Flat, Reading, Zsre, zsre_id
from evaluators.datasets.knowedit import KnowEdit, is_knowedit, knowedit_id
from evaluators.datasets.reading import Record
from evaluators.datasets.spec import Format

PLAIN = frozenset(("prompt", "subject", "target_new"))  # what a fact in a line of its own says


def recognise(records: Iterable[Record], name: str) -> Format:
    """The format of a data set, by the keys that most of these records have. Raises `InputError` where the keys of none
    tell of a format."""
    contents = [without_nulls(record.content) for record in records if isinstance(record.content, dict)]
    found = Counter(format for content in contents if (format := _format_of(content)))
    if found:
        return found.most_common(1)[0][0]
    keys = ", ".join(map(spelt, contents[0])) or "none"
    nearly = ""
    if contents[0].keys() & PLAIN:  # a fact as people write it down
        missing = sorted(PLAIN - contents[0].keys())
        nearly = f". A plain fact needs {' and '.join(missing)}, too"
    raise InputError(f"data set '{name}': no format is known by the keys of its first record ({keys}); "
                     f"'format' may be {', '.join(get_args(Format))}{nearly}")


def _format_of(record: dict[str, Any]) -> Format | None:
    keys = record.keys()
    if "requested_rewrite" in keys:
        return "counterfact"
    if "src" in keys and keys & {"alt", "answers"}:
        return "zsre"
    if is_knowedit(record):
        return "knowedit"
    if keys >= PLAIN:
        return "counterfact-flat" if keys & {"ground_truth", "rephrase_prompt", "locality_prompt"} else "edits"
    return None


def read_case(record: Record, format: Format, reading: Reading) -> Case:
    """The case of a record. Raises `Malformed`, with what is wrong and where."""
    if record.fault is not None:
        raise Malformed(record.fault)
    if not isinstance(record.content, dict):
        raise Malformed(f"expected an object, found {type(record.content).__name__}")
    content = without_nulls(record.content)
    try:
        if format == "edits":
            return _edit(content, record.number)
        return _FORMS[format].model_validate(content).case(record.number, reading)
    except ValidationError as error:
        raise Malformed(first_problem(error)) from error


def name_of(record: Record, format: Format) -> str:
    """The id that a record's case has, as far as it can be told."""
    if format in _COUNTED:
        return _COUNTED[format](record.number)
    content = without_nulls(record.content) if isinstance(record.content, dict) else {}
    name = content.get("id" if format == "edits" else "case_id")
    known = (isinstance(name, int | str) and not isinstance(name, bool) and not unfit(str(name))
             and not (format == "edits" and says_nothing(name)))
    return str(name) if known else f"record {record.number}"


_FORMS: dict[Format, type[Counterfact] | type[Flat] | type[Zsre] | type[KnowEdit]] = {
    "counterfact": Counterfact, "counterfact-flat": Flat, "zsre": Zsre, "knowedit": KnowEdit}
_COUNTED = {"zsre": zsre_id, "knowedit": knowedit_id}  # the formats whose records have no ids
_PROMPTS = ("paraphrases", "generation_prompts", "references")


def _edit(content: dict[str, Any], number: int) -> Case:
    """A case by its own fields; without an `id` it is called by its number, as where it is skipped."""
    content = _edit_stated(content)
    for place, text in texts_in(content):
        if problem := unfit(text):
            raise Malformed(f"{place}: {problem}")
    name = content.get("id", f"record {number}")
    named = {**content, "id": str(name) if isinstance(name, int) and not isinstance(name, bool) else name}
    try:
        case = Case.model_validate_json(json.dumps(named), strict=True)
    except ValidationError as error:
        raise Malformed(_problem(error)) from error
    if case.subject_start is not None and case.subject_start < 0:
        raise Malformed("subject_start: it is negative")
    return case


def _problem(error: ValidationError) -> str:
    """Like `first_problem`; of a field that there is not, what was probably meant."""
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] != "extra_forbidden":
        return first_problem(error)
    *where, name = problem["loc"]
    model = Case if not where else Chain if where[0] == "portability" and "link" not in where else Probe
    return ": ".join(filter(None, [".".join(map(spelt, where)), str(unknown("field", str(name), model.model_fields))]))


def _edit_stated(content: dict[str, Any]) -> dict[str, Any]:
    """What a record says, without the fields of the case and of its questions that say nothing."""
    said = {key: value for key, value in stated(content, Case).items() if key != "id" or not says_nothing(value)}
    said |= {key: that_say_something(said[key]) for key in _PROMPTS if key in said}
    return {key: _questions_stated(value) for key, value in said.items()}


def _questions_stated(value: Any) -> Any:
    if isinstance(value, list):
        return [_questions_stated(item) for item in value]
    if isinstance(value, dict):
        return {key: _questions_stated(inner) for key, inner in stated(value, Chain).items()}
    return value
