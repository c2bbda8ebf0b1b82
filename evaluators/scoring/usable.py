"""Which cases a model can be asked about: those of which it reads everything that decides what is measured."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from editors.core.errors import CaseError, InputError, quoted
from editors.core.models.model import LanguageModel
from editors.core.places import shown
from evaluators.audit import Finding
from evaluators.cases import Case, ProbeKey, Role, Skipped, ask
from evaluators.datasets.corpus import SAMPLE, read_corpus
from evaluators.scoring.measures import NOTHING_MORE, Measures
from evaluators.scoring.observe import questions

LOOKED_AT = 1000  # characters of a text of a corpus
TOLD = 10  # of the characters of a corpus that a model does not know


def unusable(model: LanguageModel, cases: Sequence[Case], measures: Measures = NOTHING_MORE,
             roles: Collection[Role] | None = None) -> list[Skipped]:
    """Those of the cases that this model cannot be asked about, each with the reason; see `check`. `roles` are all of
    the measures', unless they are given."""
    failed = []
    for case in cases:
        try:
            check(model, case, measures, measures.roles if roles is None else roles)
        except CaseError as error:
            failed.append(Skipped(case_id=case.id, reason=str(error)))
    return failed


def check(model: LanguageModel, case: Case, measures: Measures, roles: Collection[Role]) -> None:
    """Raises `CaseError` unless all that the case is asked can be encoded, and the answers mean something.

    A case is asked everything or nothing: means over different probes cannot be compared. An answer, and the edit's own
    prompt with its subject, must be read whole: where characters become one unknown token, other answers and subjects
    are the same to the model. Two answers that compete must differ in tokens. Another prompt is context, which the
    edited and the unedited model read alike, so it may have unknown characters while most of its letters are known;
    three in ten of COUNTERFACT's paraphrases begin with a sentence that has one for T5.
    """
    asked = questions(model, case, roles)
    texts = {key: (prompt, target) for key, prompt, target in ask(case) if key in asked}
    for key, (prompt, target) in texts.items():
        where = f"{key.role} {key.number}"
        if lost := model.lost(target):
            raise CaseError(f"{where}: the answer {quoted(target)} has {_unknown(model, lost)}")
        if key.which == "answer":
            _check_prompt(model, where, prompt, whole=key.role == "rewrite")
        elif asked[key].target == asked[ProbeKey(key.role, key.number)].target:
            raise CaseError(f"{where}: the answer {quoted(texts[ProbeKey(key.role, key.number)][1])} and its rival "
                            f"{quoted(target)} are the same tokens to '{model.name}'")
    for measure in measures:
        for prompt in measure.prompts(case):
            try:
                model.encode(prompt)
            except CaseError as error:
                raise CaseError(f"{measure.name}: {error}") from error
            _check_prompt(model, measure.name, prompt, whole=False)


def check_read(model: LanguageModel, corpus: str) -> None:
    """Raises `InputError` where a model's tokenizer knows too few letters of a corpus, by its first texts: the keys of
    one unknown token would stand for those of the language."""
    if lost := model.mostly_lost(*(text[:LOOKED_AT] for text in islice(read_corpus(corpus), SAMPLE))):
        raise InputError(f"corpus '{shown(corpus)}': most letters of its texts are {_unknown(model, lost[:TOLD])} ...; "
                         "take one that it can read")


def _check_prompt(model: LanguageModel, where: str, prompt: str, whole: bool) -> None:
    if lost := model.lost(prompt) if whole else model.mostly_lost(prompt):
        raise CaseError(f"{where}: the prompt {quoted(prompt)} has {_unknown(model, lost)}")


def _unknown(model: LanguageModel, lost: str) -> str:
    return f"characters that '{model.name}' has no token for: {' '.join(lost)}"


def audit(model: LanguageModel, cases: Sequence[Case]) -> Iterator[Finding]:
    """What one model makes of cases: those that are unusable, and of the others those with a prompt that has characters
    it does not know."""
    failed = {case.case_id: case.reason for case in unusable(model, cases)}
    for case in cases:
        if case.id in failed:
            yield Finding(case.id, "unusable", failed[case.id])
        elif found := next(((key, prompt, lost) for key, prompt, _ in ask(case) if (lost := model.lost(prompt))), None):
            key, prompt, lost = found
            yield Finding(case.id, "unknown-characters",
                          f"{key.role} {key.number}: the prompt {quoted(prompt)} has {_unknown(model, lost)}")
