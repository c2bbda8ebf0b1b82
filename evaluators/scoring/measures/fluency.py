"""Longer texts: how fluent an edited model still is, and whether it writes about the new target's kind of thing.

Meng et al. 2022, section 3.4 (fluency GE, consistency RS), whose figures are these times 100.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

from pydantic import PositiveInt, PrivateAttr

from editors.core.errors import InputError
from evaluators.cases import Case, Edited
from evaluators.datasets import DatasetSpec, check_content, file_digest, snippet_texts
from evaluators.scoring.measures.base import Measure
from evaluators.scoring.metrics import Metric, Score

if TYPE_CHECKING:
    from editors.core.models.model import LanguageModel
    from editors.core.patches.patch import Patch

WEIGHTS = {2: 2 / 3, 3: 4 / 3}  # of bigrams and trigrams
TOKENS = 10  # read for each token that a text may be long, all texts of a case together; measured


class Fluency(Measure):
    """Texts written on from a case's generation prompts: their fluency, and their consistency with texts about things
    of which the new target is true, where a case has such references."""

    name = "fluency"
    version = 1
    metrics = (
        Metric("fluency", "entropy of bigrams and trigrams in texts written on; low where they repeat", "bits"),
        Metric("consistency", "tf-idf cosine of those texts with references of what the target is true of", "cosine"))

    tokens: PositiveInt = 100
    """Tokens of a text in all, its prompt included (Meng et al. 2022, the published code)."""
    top_k: PositiveInt = 5
    """Each token is drawn from so many most probable (Meng et al. 2022, the published code)."""
    snippets: str | None = None
    """The file of references, over all of whose texts words are weighted; the data set's, unless it is given."""
    _digest: str = PrivateAttr(default="")  # of that file, when the campaign was planned

    def located(self, locate: Callable[[str], str]) -> Self:
        return self.model_copy(update={"snippets": self.snippets and locate(self.snippets)})

    def prepared(self) -> Self:
        if not all(map(find_spec, ("nltk", "sklearn"))):
            raise InputError("the measure 'fluency' needs the packages nltk and scikit-learn: "
                             "pip install 'editfleet[fluency]'")
        return self

    def on(self, dataset: DatasetSpec) -> Self:
        here = self.model_copy(update={"snippets": self.snippets or dataset.snippets})
        here._digest = file_digest(here.snippets) if here.snippets else ""
        return here

    def identity(self) -> dict[str, Any]:
        """With what the file of references holds in the place of where it is."""
        same = super().identity()
        return {**same, "snippets": self._digest} if self.snippets else same

    def note(self, cases: Sequence[Case]) -> str | None:
        if any(case.generation_prompts for case in cases):
            return None
        return "no case has generation prompts, so 'fluency' measures nothing here"

    @property
    def tokens_scored(self) -> float:
        return TOKENS * self.tokens

    def prompts(self, case: Case) -> Iterable[str]:
        return case.generation_prompts

    def score(self, model: LanguageModel, edited: Sequence[Edited]) -> Iterator[Score]:
        for each in edited:
            case = each.case
            if not case.generation_prompts:
                continue
            texts = tuple(write(model, case, each.patch, self))
            sound = each.patch.is_finite  # else nothing is written on, and a prompt alone is no sign of anything
            yield Score(case.id, case.subject, "fluency", fluency(texts) if sound else 0.0, texts)
            if case.references and self.snippets is not None:
                yield Score(case.id, case.subject, "consistency",
                            idf_of(self.snippets, self._digest).consistency(texts, case.references) if sound else 0.0)


def write(model: LanguageModel, case: Case, patch: Patch, how: Fluency) -> list[str]:
    """Each generation prompt of a case with what the model writes on after it under `patch`.

    The draws depend on the case alone, not on the cases beside it. Raises `CaseError` for a prompt that cannot be read.
    """
    from editors.core.patches.overlay import overlay
    from evaluators.scoring.decoding import Decoding, generate

    prompts = [model.encode(prompt) for prompt in case.generation_prompts]
    seed = int.from_bytes(hashlib.sha256(case.id.encode()).digest()[:4], "big")
    texts: list[str] = []
    with overlay(model, patch):
        for prompt, encoded in zip(case.generation_prompts, prompts, strict=True):
            read = 0 if model.has_encoder else len(encoded)  # an encoder's prompt is no part of the text
            decoding = Decoding(max(how.tokens - read, 1), top_k=how.top_k, seed=seed + len(texts))
            texts += [f"{prompt}{text}" for text in generate(model, [encoded], decoding)]
    return texts


@cache
def _tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()


def words(text: str) -> list[str]:
    """Words and punctuation marks, as in the Penn Treebank."""
    found: list[str] = _tokenizer().tokenize(text)
    return found


def fluency(texts: Sequence[str]) -> float:
    """The mean over texts of the weighted mean of bigram and trigram entropy, in bits: low where a text repeats
    itself."""
    return fmean(fmean(weight * _entropy(words(text), n) for n, weight in WEIGHTS.items()) for text in texts)


def _entropy(tokens: Sequence[str], n: int) -> float:
    """Entropy in bits of the distribution of n-grams; 0 for fewer than n tokens."""
    counts = Counter(zip(*(tokens[start:] for start in range(n)), strict=False))
    total = counts.total()
    # H = -sum p log2 p over the n-grams of the text
    return -sum(count / total * math.log2(count / total) for count in counts.values())


class Idf:
    """Weights of words: how few of some texts they are in."""

    def __init__(self, texts: Iterable[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer().fit(texts)

    def consistency(self, texts: Sequence[str], references: Sequence[str]) -> float:
        """The cosine of the tf-idf vectors of all texts joined and all references joined; 0 where they share no
        word."""
        left, right = self._vectorizer.transform([" ".join(texts), " ".join(references)])
        return float((left @ right.T).toarray()[0, 0])


@cache
def idf_of(snippets: str, planned: str) -> Idf:
    """Weights over all texts of a file in the form of `attribute_snippets.json`. Raises `InputError` where a campaign
    was `planned` with another content of it."""
    if planned:
        check_content(snippets, planned, file_digest)
    return Idf(snippet_texts(snippets))
