"""How a campaign names a data set, and where the cases are that methods judged on it learn from."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from editors.core.errors import InputError, unknown
from editors.core.places import holds_secrets, shown
from editors.core.settings import Name, Settings
from evaluators.audit import Flag
from evaluators.testbed.cases import Split

BUILT_IN = ("testbed-cloze", "testbed-questions", "real-facts")

Format = Literal["counterfact", "counterfact-flat", "zsre", "knowedit", "edits"]
Target = Literal["alt", "answers0"]
Generality = Literal["paraphrase_prompts", "generation_prompts", "rephrase_prompt"]

SWITCHES: dict[str, tuple[Format, ...]] = {  # which formats each is for
    "target": ("zsre",), "generality": ("counterfact", "counterfact-flat"), "paraphrases": ("counterfact-flat",),
    "snippets": ("counterfact",)}


class DatasetSpec(Settings):
    """A data set as a campaign names it: a built-in name alone, or a mapping."""

    name: str
    """Of a built-in data set (`testbed-cloze`, `testbed-questions`, `real-facts`); a free label with `path`, `hub` or
    `built_in`."""
    built_in: Name | None = None
    """Which built-in data set it is, under a name of your own: one can be in a campaign several times."""
    path: Name | None = None
    """A file or URL: a JSON list of records or JSON Lines, also compressed (.gz, .bz2, .xz, .zip)."""
    format: Format | None = None
    """What the records look like; left out, most of the first hundred tell. Not for built-in data sets."""
    split: str = "eval"
    """Of a built-in data set: `eval` or `train`, halves that share no subject, or `all`. With `hub`: a split of it."""
    limit: int | None = Field(default=None, ge=1)
    """Records read, at most, those that are then skipped among them; left out, all."""
    offset: int = Field(default=0, ge=0)
    """Records passed over before the first that is read."""
    train: Name | None = None
    """Where trained methods learn: a file or URL of any format, or with `hub` another split of it. A built-in data set
    has its other half."""
    hub: str | None = None
    """A data set on the Hugging Face hub, or a folder; needs `split`."""
    hub_config: str | None = None
    """Which configuration of it, where it has several."""
    target: Target | None = None
    """zsre: what edits write: the counterfactual `alt` (default), or `answers0`, the first true answer, as ROME's and
    MEMIT's evaluations do (Meng et al. 2022; 2023)."""
    generality: Generality | None = None
    """Which prompts count as paraphrases. counterfact: `paraphrase_prompts` (default), or `generation_prompts`, which
    only mention the subject. counterfact-flat: `rephrase_prompt`, or with `paraphrases` `paraphrase_prompts`."""
    paraphrases: str | None = None
    """counterfact-flat: the full counterfact.json, a file or URL, for the paraphrases that the flat form lacks."""
    snippets: str | None = None
    """counterfact: attribute_snippets.json, a file or URL, for the cases' `references` (Meng et al. 2022, 3.4)."""
    exclude: tuple[Flag, ...] = ()
    """Leaves out the cases that have one of these flags of `editfleet audit`."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @property
    def is_built_in(self) -> bool:
        return self.path is None and self.hub is None

    @property
    def known_as(self) -> str:
        """The name that a built-in data set is found by."""
        return self.built_in or self.name

    @property
    def source(self) -> str:
        """Where the records are, for messages and files."""
        if self.path is not None:
            return shown(self.path)
        return f"hub data set {self.hub}, split {self.split}" if self.hub else "built in"

    def check_source(self) -> None:
        """Raises `InputError` for an unknown name and for fields that do not go together."""
        if holds_secrets(self.name):
            raise InputError(f"data set '{shown(self.name)}': a name is shown and kept everywhere, and this one is an "
                             "address with a name, password or query in it; give it to 'path', with another name")
        if self.path is not None and self.hub is not None:
            raise InputError(f"data set '{self.name}' has both 'path: {shown(self.path)}' and 'hub: {self.hub}'; "
                             "leave one out")
        if self.hub is None and self.hub_config is not None:
            raise InputError(f"data set '{self.name}': 'hub_config: {self.hub_config}' is for data sets with 'hub'")
        if self.hub is not None and "split" not in self.model_fields_set:
            raise InputError(f"data set '{self.name}' has a hub but no split: add 'split: test', or what it is called "
                             f"in {self.hub}")
        if self.path is not None and self.split != "eval":
            raise InputError(f"data set '{self.name}': a file has no splits; leave 'split: {self.split}' out")
        if not self.is_built_in:
            if self.built_in is not None:
                raise InputError(f"data set '{self.name}' has both 'built_in: {self.built_in}' and a place; leave one "
                                 "out")
            return
        if self.known_as not in BUILT_IN:
            raise unknown("data set", self.known_as, BUILT_IN)
        if self.split not in get_args(Split):
            raise unknown(f"split of data set '{self.name}'", self.split, get_args(Split))
        for switch in ("format", *SWITCHES):
            if (value := getattr(self, switch)) is not None:
                raise InputError(f"data set '{self.name}' is built in; leave '{switch}: {shown(value)}' out")

    def check_switches(self, format: Format) -> None:
        """Raises `InputError` for a switch that means nothing for a format."""
        for switch, formats in SWITCHES.items():
            if (value := getattr(self, switch)) is not None and format not in formats:
                raise InputError(f"data set '{self.name}': '{switch}' is for {' and '.join(formats)}, and this is "
                                 f"{format}; leave '{switch}: {shown(value)}' out")
        possible = {"counterfact": ["paraphrase_prompts", "generation_prompts"],
                    "counterfact-flat": ["paraphrase_prompts" if self.paraphrases else "rephrase_prompt"]}
        if self.generality is not None and self.generality not in possible[format]:
            wants_file = format == "counterfact-flat" and self.generality == "paraphrase_prompts"
            raise InputError(f"data set '{self.name}' ({format}{', with paraphrases' if self.paraphrases else ''}) "
                             f"has no 'generality: {self.generality}', but {' or '.join(possible[format])}"
                             + ("; add 'paraphrases: FILE', the full counterfact.json" if wants_file else ""))

    def switches(self, format: Format | None) -> dict[str, Any]:
        """The switches that a format has, with the values that apply."""
        match format:
            case "counterfact":
                return {"generality": self.generality or "paraphrase_prompts", "snippets": self.snippets}
            case "counterfact-flat":
                return {"generality": "paraphrase_prompts" if self.paraphrases else "rephrase_prompt",
                        "paraphrases": self.paraphrases}
            case "zsre":
                return {"target": self.target or "alt"}
        return {}
