"""What is measured beyond the teacher-forced scores: the `measures` of a campaign."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt, field_validator

from editors.core.errors import InputError
from evaluators.cases import ROLES, Role

GENERATED: tuple[Role, ...] = ("rewrite", "paraphrase", "neighbourhood", "portability")
LOCAL: tuple[Role, ...] = ("neighbourhood", "attributes", "unrelated", "distracting")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Generation(_Part):
    """Free greedy answers (METHODS 10.4): up to `tokens` tokens or the first of `stop`, to the prompt as it stands in
    `template`."""

    tokens: PositiveInt = 50
    stop: tuple[str, ...] = (".", "\n")
    template: str = "{prompt}"

    @field_validator("template")
    @classmethod
    def _has_a_prompt(cls, template: str) -> str:
        if template.count("{prompt}") != 1:
            raise ValueError(f"template '{template}' must hold {{prompt}} once, such as 'Q: {{prompt}}\\nA:'")
        return template

    @field_validator("stop")
    @classmethod
    def _stops(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("an empty stop text would end every answer before its first word; leave it out")
        return stop


class Writing(_Part):
    """Longer texts from a case's generation prompts (Meng et al. 2022, section 3.4): in all `tokens` tokens with the
    prompt, each drawn from the `top_k` most probable. Yields fluency, and consistency where a case has references.

    `snippets` is the file of the references, over all of which words are weighted: the data set's, unless it is given.
    """

    tokens: PositiveInt = 100
    top_k: PositiveInt = 5
    snippets: str | None = None


class Perplexity(_Part):
    """Perplexity of an edited model on the first `texts` of a corpus, or on `sample` itself, as a sign of collapse."""

    corpus: str = "testbed"
    texts: PositiveInt = 20
    sample: tuple[str, ...] = ()


class Measures(_Part):
    """`kl` and `distracting` add to locality; each other part is measured where it is given. `true` stands for a part
    with its defaults."""

    kl: bool = False
    distracting: bool = False
    generation: Generation | None = None
    writing: Writing | None = None
    perplexity: Perplexity | None = None

    @field_validator("generation", "writing", "perplexity", mode="before")
    @classmethod
    def _switched_on(cls, value: object) -> object:
        return {} if value is True else None if value is False else value

    @property
    def roles(self) -> tuple[Role, ...]:
        """The questions to ask the unedited model."""
        return (*ROLES, "distracting") if self.distracting else ROLES

    @property
    def edited_roles(self) -> tuple[Role, ...]:
        """The questions to ask an edited one: what it knows already is asked of the unedited model only."""
        return tuple(role for role in self.roles if role != "link")

    @property
    def of_answers(self) -> Measures:
        """The part that asks the questions of a case, and so is needed of the unedited model too."""
        return Measures(kl=self.kl, distracting=self.distracting, generation=self.generation)

    @property
    def kl_roles(self) -> tuple[Role, ...]:
        return LOCAL if self.kl else ()

    def check(self) -> None:
        """Raises `InputError` where a package is missing that a measure needs."""
        if self.writing is not None and not all(map(find_spec, ("nltk", "sklearn"))):
            raise InputError("the measure 'writing' needs the packages nltk and scikit-learn: "
                             "pip install 'editfleet[writing]'")

    def identity(self) -> dict[str, Any]:
        """What is measured in addition, as JSON; empty for nothing."""
        return self.model_dump(mode="json", exclude_defaults=True)


NOTHING_MORE = Measures()
