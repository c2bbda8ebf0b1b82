"""From a `DatasetSpec` to its cases: one at a time, or all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import Any, TypeVar, cast, get_args

from editors.core.errors import DID_YOU_MEAN, CaseError, InputError
from editors.core.places import shown
from evaluators.audit import Auditor, subjects
from evaluators.cases import Case, Skipped
from evaluators.datasets.fields import Malformed
from evaluators.datasets.formats import name_of, read_case, recognise
from evaluators.datasets.forms import Reading
from evaluators.datasets.keeping import CaseFile, Cases
from evaluators.datasets.lookup import paraphrases_by_case, snippets_by_fact
from evaluators.datasets.reading import Record, file_records, hub_records
from evaluators.datasets.spec import DatasetSpec, Format
from evaluators.datasets.training import training_spec
from evaluators.realworld.cases import real_cases
from evaluators.testbed.cases import Split, testbed_cases

JUDGED = 100  # records, of which most tell the format
T = TypeVar("T")
Items = Iterator[Case | Skipped]


@dataclass(frozen=True)
class Dataset:
    """Usable cases in file order, and the records that are not usable. A built-in one has no format. `digest`
    identifies the cases' content, in order."""

    spec: DatasetSpec
    cases: Cases
    skipped: tuple[Skipped, ...] = ()
    format: Format | None = None
    digest: str = field(default="", compare=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever reads results on these cases should know."""
        notes = []
        if self.format == "counterfact-flat" and self.spec.paraphrases is None:
            notes.append("'rephrase_prompt' is no paraphrase but a generation prompt in most records (82.8 % of 1,031 "
                         "that were compared), so generality is not COUNTERFACT's; add 'paraphrases: FILE', the full "
                         "counterfact.json")
        if self.format == "zsre" and self.spec.target == "answers0":
            notes.append("portability and inverse questions are left out: they ask what follows from 'alt', not from "
                         "the first of 'answers'")
        return tuple(f"data set '{self.spec.name}': {note}" for note in notes)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Where the cases come from and how they were read; fit for JSON."""
        spec = self.spec
        switches = {name: value and shown(value) for name, value in spec.switches(self.format).items()}
        return {"name": spec.name, "source": spec.source, "format": self.format, "split": spec.split,
                "hub_config": spec.hub_config, "offset": spec.offset, "limit": spec.limit,
                "exclude": list(spec.exclude), **switches, "digest": self.digest,
                "records": len(self.cases) + len(self.skipped), "cases": len(self.cases),
                "skipped": len(self.skipped)}


def load_dataset(spec: DatasetSpec) -> Dataset:
    """Loads and checks a data set. Records that are malformed or cannot be edited are in `skipped`, with the reason,
    and so is the second of two with one id.

    Raises `InputError` for an unknown name, a source that cannot be read, a format that is not recognised, switches
    that do not belong to it, and where no record is usable.
    """
    format, items = _open(spec)
    kept, ids, skipped, digest = CaseFile(), set[str](), list[Skipped](), hashlib.sha256()
    for number, item in enumerate(items, spec.offset):
        if isinstance(item, Skipped):
            skipped.append(item)
        elif item.id in ids:
            skipped.append(Skipped(case_id=item.id, reason=f"record {number}: an earlier record has this id"))
        else:
            ids.add(item.id)
            kept.add(item)
            digest.update(item.model_dump_json().encode() + b"\n")
    if not ids:
        raise InputError(f"data set '{spec.name}' has no usable case: all of its {len(skipped)} records are left out, "
                         f"such as {skipped[0].case_id}: {skipped[0].reason}")
    return Dataset(spec, kept.cases(), tuple(skipped), format, digest.hexdigest()[:16])


def stream_cases(spec: DatasetSpec) -> Items:
    """What `load_dataset` loads, one record after another, in the memory that one takes.

    But ids that occur twice are not noticed, and `exclude` remembers what was asked before. The first records are read
    at once, the others as they are asked for; either may raise `InputError`.
    """
    return _open(spec)[1]


def _open(spec: DatasetSpec) -> tuple[Format | None, Items]:
    """A data set's format, and a case or a skip for each of its records."""
    spec.check_source()
    format: Format | None = None
    if spec.is_built_in:
        # Making a case takes 0.1 ms: no more are made than are asked for.
        last = spec.offset + spec.limit if spec.limit is not None else None
        items: Items = _range(iter(_built_in(spec.known_as, cast(Split, spec.split), last)), spec)
    else:
        records = hub_records(spec.hub, spec.hub_config, spec.split) if spec.hub else file_records(spec.path or "")
        format, records = _recognised(records, spec)
        spec.check_switches(format)
        reading = Reading(spec.target or "alt", spec.switches(format).get("generality", "paraphrase_prompts"),
                          paraphrases_by_case(spec.paraphrases) if spec.paraphrases else None,
                          snippets_by_fact(spec.snippets) if spec.snippets else None)
        items = _parsed(_range(records, spec), format, reading, spec)
    items = _editable(items)
    return format, _without_excluded(items, spec) if spec.exclude else items


def _built_in(name: str, split: Split, last: int | None) -> Sequence[Case]:
    """The first so many cases of a built-in data set."""
    match name:
        case "testbed-cloze":
            return testbed_cases("cloze", split, last)
        case "testbed-questions":
            return testbed_cases("question", split, last)
        case "real-facts":
            return real_cases(split, last)
    raise AssertionError(name)  # which `check_source` would have refused


def _recognised(records: Iterator[Record], spec: DatasetSpec) -> tuple[Format, Iterator[Record]]:
    """The format that is given, or else that of most of the first records; and all records."""
    last = JUDGED if spec.limit is None else spec.offset + spec.limit
    head, rest = _begun(records, 1 if spec.format else min(JUDGED, last))
    if not head:
        raise InputError(f"data set '{spec.name}' has 0 records")
    if spec.format is None and not any(isinstance(record.content, dict) for record in head):
        raise InputError(f"data set '{spec.name}' has no record that is an object; the first, {head[0]}, is "
                         f"{head[0].fault or type(head[0].content).__name__}")
    return spec.format or recognise(head, spec.name), chain(head, rest)


def _begun(records: Iterator[T], count: int) -> tuple[list[T], Iterator[T]]:
    """The first records, and the others. What is wrong with a file is told when reading gets there, unless it is at
    its beginning."""
    head: list[T] = []
    try:
        for record in islice(records, count):
            head.append(record)
    except InputError as error:
        if not head:
            raise
        return head, _raising(error)
    return head, records


def _raising(error: InputError) -> Iterator[Any]:
    yield from ()
    raise error


def _range(records: Iterator[T], spec: DatasetSpec) -> Iterator[T]:
    """The records from `offset` on, `limit` at most; no more are read."""
    passed = sum(1 for _ in islice(records, spec.offset))
    wanted = islice(records, spec.limit)
    try:
        yield next(wanted)
    except StopIteration:
        raise InputError(f"data set '{spec.name}' has {passed} records: offset {spec.offset} leaves none") from None
    yield from wanted


def _parsed(records: Iterable[Record], format: Format, reading: Reading, spec: DatasetSpec) -> Items:
    first, well_formed = None, False
    for record in records:
        try:
            case = read_case(record, format, reading)
        except Malformed as problem:
            first = first or f"{record}: {problem}"
            yield Skipped(case_id=name_of(record, format), reason=f"{record}: {problem}")
        else:
            well_formed = True
            yield case
    if first and not well_formed:
        others = ", ".join(other for other in get_args(Format) if other != format)
        doubt = "" if DID_YOU_MEAN in first else f". Is it another format ({others})?"
        raise InputError(f"data set '{spec.name}' has no well-formed record of format '{format}'. {first}{doubt}")


def _editable(items: Items) -> Items:
    for item in items:
        if isinstance(item, Case):
            try:
                item.request()
            except CaseError as error:
                item = Skipped(case_id=item.id, reason=str(error))
        yield item


def _without_excluded(items: Items, spec: DatasetSpec) -> Items:
    overlap = "train-overlap" in spec.exclude
    auditor = Auditor(subjects(stream_cases(training_spec(spec))) if overlap else ())
    for item in items:
        if isinstance(item, Skipped):
            yield item
            continue
        found = [finding for finding in auditor.look(item) if finding.flag in spec.exclude]
        if found:
            yield Skipped(case_id=item.id, reason=f"{found[0].flag}: {found[0].detail}")
        else:
            auditor.remember(item)
            yield item
