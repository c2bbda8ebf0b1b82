"""Files that are looked things up in while records are read: COUNTERFACT's paraphrases and its attribute snippets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, ValidationError

from editors.core.errors import InputError
from editors.core.places import shown
from evaluators.datasets.fields import Malformed
from evaluators.datasets.formats import read_case
from evaluators.datasets.forms import Paraphrases, Reading
from evaluators.datasets.reading import file_records


class _Sample(BaseModel):
    model_config = ConfigDict(strict=True)

    text: str


class _Snippets(BaseModel):
    """Texts about things that have a relation to a target."""

    model_config = ConfigDict(strict=True)

    relation_id: str
    target_id: str
    samples: list[_Sample]


def snippet_texts(path: str) -> Iterator[str]:
    """All texts of an attribute_snippets.json, a file or URL. Raises `InputError` where it is none."""
    return (sample.text for entry in _snippets(path) for sample in entry.samples)


def snippets_by_fact(path: str) -> dict[tuple[str, str], list[str]]:
    """The texts of an attribute_snippets.json by (relation, target)."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in _snippets(path):
        found[entry.relation_id, entry.target_id] += [sample.text for sample in entry.samples]
    return dict(found)


def paraphrases_by_case(path: str) -> dict[str, Paraphrases]:
    """The `paraphrase_prompts` of a counterfact.json by case id; malformed records have none."""
    found: dict[str, Paraphrases] = {}
    for record in file_records(path):
        try:
            case = read_case(record, "counterfact", Reading())
        except Malformed:
            continue
        found.setdefault(case.id, Paraphrases(case.subject, case.paraphrases))
    if not found:
        raise InputError(f"'{shown(path)}' has no COUNTERFACT record; 'paraphrases' names the full counterfact.json")
    return found


def _snippets(path: str) -> Iterator[_Snippets]:
    for record in file_records(path):
        try:
            yield _Snippets.model_validate(record.content)
        except ValidationError as error:
            raise InputError(f"'{shown(path)}' is no attribute_snippets.json: {record} lacks relation_id, target_id or "
                             "samples with a text each") from error
