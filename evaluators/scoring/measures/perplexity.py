"""Perplexity on running text: the probe for a model that edits have broken (Yang et al. 2024, "The Butterfly Effect of
Model Editing")."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Self

from pydantic import Field, PositiveInt, PrivateAttr

from editors.core.errors import CaseError, InputError, quoted
from editors.core.places import shown
from editors.core.settings import Name
from evaluators.cases import Case, Edited
from evaluators.datasets import TESTBED_CORPUS, read_corpus
from evaluators.scoring.measures.base import Measure
from evaluators.scoring.metrics import Metric, Score

if TYPE_CHECKING:
    from editors.core.models.batches import Encoded
    from editors.core.models.model import LanguageModel
    from editors.core.patches.patch import Patch

TOKENS = 100  # of a text, about


class Perplexity(Measure):
    """Perplexity of each edited model on some texts, a sign of collapse; every case of one edit has its value."""

    name = "perplexity"
    version = 1
    metrics = (Metric("perplexity", "perplexity of the edited model on running text", "perplexity", "lower"),)

    corpus: Name = TESTBED_CORPUS
    """Where the texts are from: `testbed`, the built-in world's, or a file or URL as second moments are taken over."""
    texts: PositiveInt = Field(default=20, le=100_000)
    """How many of its texts, from the first. Ours."""
    sample: tuple[str, ...] = ()
    """The texts themselves; read from the corpus where there are none."""
    _missing: int = PrivateAttr(default=0)  # texts that the corpus did not have

    def located(self, locate: Callable[[str], str]) -> Self:
        return self.model_copy(update={"corpus": locate(self.corpus)})

    def prepared(self) -> Self:
        """The texts alone: where they are from is no part of what is measured."""
        if self.sample:
            return self
        sample = tuple(islice(read_corpus(self.corpus), self.texts))
        if not sample:
            raise InputError(f"corpus '{shown(self.corpus)}' has no text to take the perplexity on")
        prepared = type(self)(sample=sample)
        prepared._missing = self.texts - len(sample)
        return prepared

    def note(self, cases: Sequence[Case]) -> str | None:
        if not self._missing:
            return None
        return (f"'perplexity' is taken on {len(self.sample)} texts, not {len(self.sample) + self._missing}: its "
                "corpus has no more")

    @property
    def tokens_per_patch(self) -> float:
        return TOKENS * (len(self.sample) or self.texts)

    def score(self, model: LanguageModel, edited: Sequence[Edited]) -> Iterable[Score]:
        distinct = {id(each.patch): each.patch for each in edited}
        found = dict(zip(distinct, perplexity(model, self.sample, list(distinct.values())), strict=True))
        return [Score(each.case.id, each.case.subject, self.name, found[id(each.patch)]) for each in edited]


def perplexity(model: LanguageModel, texts: Sequence[str], patches: Sequence[Patch]) -> list[float]:
    """exp of the mean negative log-probability of a token of all texts, under each patch; infinite where not finite.

    A decoder predicts each token of a text from those before it, an encoder-decoder the second half of its words from
    the first. Texts are cut where the model's positions end; one of a single token has none to predict. Raises
    `CaseError` where that is all there are, or the model's tokenizer does not know most of their letters.
    """
    from editors.core.patches.overlay import UNPATCHED
    from evaluators.scoring.observe import Row, answer

    if lost := model.mostly_lost(*texts):
        raise CaseError(f"perplexity: most letters of its texts are none that '{model.name}' has tokens for, such as "
                        f"{quoted(lost)}; take texts that it can read")
    encoded = [each for each in (_encode(model, text) for text in texts) if each.target]
    if not encoded:
        raise CaseError(f"perplexity: each of its {len(texts)} texts is a single token to '{model.name}', such as "
                        f"{quoted(texts[0])}; take longer ones")
    rows = [[Row(number if patch else UNPATCHED, each) for each in encoded] for number, patch in enumerate(patches)]
    outputs = answer(model, {row for own in rows for row in own}, patches)
    tokens = sum(len(each.target) for each in encoded)
    return [_exp(-sum(outputs[row].logprob for row in own) / tokens) for own in rows]


def _encode(model: LanguageModel, text: str) -> Encoded:
    from editors.core.models.batches import Encoded

    if model.has_encoder:
        words = text.split()
        return model.encode(" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2:]))
    ids = (model.start + model.tokenise(text))[: model.max_length]
    given = max(len(model.start), 1)  # a token that nothing precedes cannot be predicted
    return Encoded(ids[:given], ids[given:])


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
