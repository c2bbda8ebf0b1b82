"""From answers to candidates: suggestions that are sound, and which of them the subject models know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from editors.core.errors import InputError
from evaluators.cases import Probe
from evaluators.files import read_json, write_json
from evaluators.portability.endpoint import Asking
from evaluators.portability.journal import Entry, request_key
from evaluators.portability.prompt import VERSION, BadAnswer, Fault, parse, prompt
from evaluators.portability.records import EditRecord, EditSource
from evaluators.scoring.metrics import KNOWN_RANK

CANDIDATES, REJECTED, SUMMARY = "candidates.json", "rejected.json", "summary.json"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Candidate(_Value):
    """A record and the portability question suggested for it.

    `ranks` are the places at which each model begins the link's answer (1 is the most probable; None: it cannot read
    the link), and `known` tells whether all models know it.
    """

    id: str
    question: str
    subject: str
    altered: str
    triple: str
    new_question: str
    new_answer: str
    altered_is: Literal["head", "tail"]
    link: Probe
    record: dict[str, Any]
    ranks: dict[str, int | None] = {}
    known: bool = False

    def extended(self) -> dict[str, Any]:
        """The record with the question as the paper's files have it; a `portability` that it came with is replaced."""
        return {**self.record, "portability": {
            "Recalled Relation": self.triple, "New Question": self.new_question, "New Answer": self.new_answer}}


class Rejected(_Value):
    """An answer that is of no use, and why."""

    id: str
    fault: Fault
    reason: str
    answer: str | None


class Sorted(NamedTuple):
    """What became of the records: sound suggestions, bad answers, and ids of those without any answer."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]
    unanswered: tuple[str, ...]


def sort_answers(records: Sequence[EditRecord], asking: Asking, answers: Mapping[str, Entry]) -> Sorted:
    """Every record under what its answer is, in order."""
    candidates, rejected, unanswered = [], [], []
    for record in records:
        entry = answers.get(request_key(asking.request(prompt(record))))
        if entry is None:
            unanswered.append(record.id)
            continue
        try:
            if entry.is_cut_off:
                raise BadAnswer("cut off", "raise --max-tokens")
            if entry.text is None:
                raise BadAnswer("no text", "")
            found = parse(entry.text, record)
        except BadAnswer as error:
            rejected.append(Rejected(id=record.id, fault=error.fault, reason=str(error), answer=entry.text))
        else:
            candidates.append(Candidate(
                id=record.id, question=record.question, subject=record.subject, altered=record.altered,
                triple=found.triple, new_question=found.question, new_answer=found.answer,
                altered_is=found.altered_is, link=found.link, record=record.raw))
    return Sorted(tuple(candidates), tuple(rejected), tuple(unanswered))


def with_ranks(candidates: Sequence[Candidate],
               ranks: Mapping[str, Sequence[int | None]]) -> tuple[Candidate, ...]:
    """The candidates, `known` where every model begins the link's answer with one of its most probable tokens."""
    return tuple(candidate.model_copy(update={
        "ranks": (own := {model: of_model[place] for model, of_model in ranks.items()}),
        "known": all(is_known(rank) for rank in own.values())}) for place, candidate in enumerate(candidates))


def is_known(rank: int | None) -> bool:
    return rank is not None and rank <= KNOWN_RANK


class KnownShare(NamedTuple):
    """A row of the paper's table 5: how many of the sound suggestions' links are known, and their share in percent."""

    known: int
    percent: float


def scores(candidates: Sequence[Candidate], models: Iterable[str]) -> tuple[dict[str, KnownShare], KnownShare]:
    """Of each model, and of all of them together."""
    def score(known: int) -> KnownShare:
        return KnownShare(known, round(100 * known / len(candidates), 2) if candidates else 0.0)

    each = {model: score(sum(is_known(candidate.ranks[model]) for candidate in candidates)) for model in models}
    return each, score(sum(candidate.known for candidate in candidates))


def write_build(folder: Path, source: EditSource, asking: Asking, outcome: Sorted, answers: Mapping[str, Entry],
                models: Mapping[str, str]) -> None:
    """Candidates, rejected answers and the summary. `models` are digests by name."""
    each, together = scores(outcome.candidates, models)
    used = {request_key(asking.request(prompt(record))) for record in source.records} & answers.keys()
    tokens = [answers[key].tokens for key in used]
    write_json(folder / CANDIDATES, [candidate.model_dump(mode="json") for candidate in outcome.candidates])
    write_json(folder / REJECTED, [answer.model_dump(mode="json") for answer in outcome.rejected])
    write_json(folder / SUMMARY, {
        "format": source.format, "records": len(source.records), "skipped": [s.model_dump() for s in source.skipped],
        "endpoint": asking.place, "model": asking.model, "temperature": asking.temperature,
        "max_tokens": asking.max_tokens, "prompt_version": VERSION,
        "prompt_tokens": sum(prompt for prompt, _ in tokens), "answer_tokens": sum(answer for _, answer in tokens),
        "unanswered": list(outcome.unanswered), "rejected": dict(Counter(r.fault for r in outcome.rejected)),
        "suggestions": len(outcome.candidates),
        "altered_is_tail": sum(candidate.altered_is == "tail" for candidate in outcome.candidates), "top": KNOWN_RANK,
        "models": {name: {"digest": models[name], **score._asdict()} for name, score in each.items()},
        "intersection": together._asdict()})


def read_candidates(folder: Path) -> tuple[Candidate, ...]:
    """The candidates that all models know. Raises `InputError` where there is no build in the folder."""
    path = folder / CANDIDATES
    if not path.exists():
        raise InputError(f"there is no {CANDIDATES} in '{folder}': `editfleet portability build ... --out {folder}` "
                         "writes it")
    try:
        found = TypeAdapter(tuple[Candidate, ...]).validate_python(read_json(path, "candidates"))
    except ValidationError as error:
        raise InputError(f"'{path}' cannot be read; building again writes it anew, and asks nothing twice: "
                         f"{error.errors()[0]['msg']}") from error
    return tuple(candidate for candidate in found if candidate.known)
