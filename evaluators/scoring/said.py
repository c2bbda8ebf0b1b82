"""What models said to every question that counts, edited and not, as text: for people to look at. Nothing is asked
anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from evaluators.cases import Case, EditedFacts, ask
from evaluators.scoring.metrics import LOCALITY, counts_for
from evaluators.scoring.observe import NO_TOKEN, Observation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = tuple[int, ...]


class Asked(NamedTuple):
    """A case with what the model answered under its patch and before, which `facts` were edited then, and the patch's
    `norm`, where it has one."""

    case: Case
    after: Observation
    before: Observation
    facts: EditedFacts
    norm: float | None


class Answer(NamedTuple):
    """What was said to one question of a case.

    `question` is what it is measured as: a metric's name without how (a hop whose second fact the unedited model knows
    is `portability`, one that it does not is `portability.all`). `target` is the answer that was forced, `target_true`
    what the edit takes away, where the case tells it, and `expected` what `.token` compares with: the target, or for
    locality what the unedited model said. `unedited` and `edited` are the most probable tokens at the target's places,
    None where its outputs are not finite, and the `written` ones what was written freely, where that was asked for.
    `right` is the question's part in `.token`; `patch_norm` the Frobenius norm of all that changed weights when it was
    asked (of a batch or a stream that of all its edits), None where no weight was changed.
    """

    case_id: str
    subject: str
    relation: str | None
    question: str
    prompt: str
    target: str
    target_true: str | None
    expected: str | None
    unedited: str | None
    edited: str | None
    unedited_written: str | None
    edited_written: str | None
    right: float
    patch_norm: float | None


def said(tokenizer: PreTrainedTokenizerBase, asked: Iterable[Asked]) -> Iterator[Answer]:
    """Every answer to a question that counts, case by case. The mean of `right` over a case's questions of one kind is
    the case's `.token`, but for `portability.all`, which has those that count as `portability`, too."""
    text = _Texts(tokenizer)
    for case, after, before, facts, norm in asked:
        texts = {key: (prompt, target) for key, prompt, target in ask(case)}
        for key, outputs in after.outputs.items():
            measured = list(counts_for(case, key, before, facts))
            if not measured:
                continue
            question = measured[-1]  # of a hop the narrower
            prompt, target = texts[key]
            first = before.outputs[key]
            unedited = text[first.predicted]
            local = key.role in LOCALITY
            yield Answer(case.id, case.subject, case.relation, question, prompt, target,
                         case.target_true, unedited if local else target, unedited, text[outputs.predicted],
                         first.text, outputs.text, outputs.agreement(first) if local else outputs.token, norm)


class _Texts(dict[Tokens, str | None]):
    """The text of tokens, as they are; each read once, as models say the same to many questions."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, tokens: Tokens) -> str | None:
        known = [token for token in tokens if token != NO_TOKEN]
        self[tokens] = str(self._tokenizer.decode(known, clean_up_tokenization_spaces=False)).strip() if known else None
        return self[tokens]
