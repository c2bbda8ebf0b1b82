"""Cases to choose settings by: of the same data set as those that the outcome is judged on, and none of these."""

from __future__ import annotations

import hashlib

from editors.core.errors import InputError
from evaluators.cases import Skipped
from evaluators.datasets.keeping import CaseFile
from evaluators.datasets.loading import Dataset, stream_cases
from evaluators.datasets.spec import DatasetSpec
from evaluators.datasets.training import training_spec
from evaluators.texts import folded

MARK = " (validation)"


def validation_set(judged: Dataset, count: int) -> Dataset:
    """So many cases of the records behind those that are judged, or where there is no `limit`, of the training cases;
    without those that share a subject, a prompt or an id with a judged one.

    Raises `InputError` where there are too few.
    """
    spec = judged.spec
    source = _source(spec)
    subjects, prompts, ids = set[str](), set[str](), set[str]()
    for case in judged.cases:
        subjects.add(folded(case.subject))
        prompts.add(folded(case.prompt))
        ids.add(case.id)
    kept, found, digest = CaseFile(), 0, hashlib.sha256()
    try:
        for item in stream_cases(source):
            if isinstance(item, Skipped) or (case := item).id in ids:
                continue
            if folded(case.subject) in subjects or folded(case.prompt) in prompts:
                continue
            ids.add(case.id)
            kept.add(case)
            digest.update(case.model_dump_json().encode() + b"\n")
            found += 1
            if found == count:
                break
    except InputError as error:
        if not found:
            raise InputError(f"data set '{spec.name}' has no cases to validate on: {error}; {_cure(spec)}") from error
        raise
    if found < count:
        raise InputError(f"data set '{spec.name}' has {found} cases to validate on that share no subject and no prompt "
                         f"with those that are judged, and {count} are wanted; lower 'validation: {{limit: {count}}}', "
                         f"or {_cure(spec)}")
    named = source.model_copy(update={"name": spec.name + MARK})
    return Dataset(named, kept.cases(), (), judged.format if spec.limit is not None else None, digest.hexdigest()[:16])


def _source(spec: DatasetSpec) -> DatasetSpec:
    if spec.limit is not None:
        return spec.model_copy(update={"offset": spec.offset + spec.limit, "limit": None})
    try:
        return training_spec(spec)
    except InputError as error:
        raise InputError(f"data set '{spec.name}' leaves no cases to validate on: give it a 'limit', behind which they "
                         f"are, or training cases ({error})") from error


def _cure(spec: DatasetSpec) -> str:
    return "lower the data set's 'limit'" if spec.limit is not None else "give the data set a 'limit'"
