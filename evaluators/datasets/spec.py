"""How a campaign names a data set, and where the cases are that methods judged on it learn from."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from editors.core.errors import InputError, unknown
from editors.core.settings import Settings
from evaluators.audit import Flag
from evaluators.testbed.cases import Flavour, Split

BUILT_IN: dict[str, Flavour] = {"testbed-cloze": "cloze", "testbed-questions": "question"}

Format = Literal["counterfact", "counterfact-flat", "zsre", "edits"]
Target = Literal["alt", "answers0"]
Generality = Literal["paraphrase_prompts", "generation_prompts", "rephrase_prompt"]

SWITCHES: dict[str, tuple[Format, ...]] = {  # which formats each is for
    "target": ("zsre",), "generality": ("counterfact", "counterfact-flat"), "paraphrases": ("counterfact-flat",),
    "snippets": ("counterfact",)}


class DatasetSpec(Settings):
    """A data set as a campaign names it: a built-in name alone, or a mapping.

    With `path` (a file or a URL) or `hub` (a data set on the hub, with its `hub_config`), `name` is a free label;
    without, it is one of `BUILT_IN`. `format` says what the records look like; without, their first tells. `split` is
    the half of a built-in data set (halves share no subject) or `all`, or a split of the hub's. `offset` and `limit`
    count records, before any is skipped. `train` is where trained methods learn: a file of any format, or another split
    of the hub's.

    What is read from a record (each is for some formats only):
    `target`: ZsRE's counterfactual `alt` (the default), or `answers0`, its first true answer, as in the evaluation of
    ROME and MEMIT. `generality`: which prompts count as paraphrases; `paraphrases`: the full counterfact.json, to look
    up the paraphrases that the flat form lacks; `snippets`: attribute_snippets.json, to fill the cases' `references`.
    `exclude` leaves out the cases that have one of these flags of the audit.
    """

    name: str
    path: str | None = None
    format: Format | None = None
    split: str = "eval"
    limit: int | None = Field(default=None, ge=1)
    offset: int = Field(default=0, ge=0)
    train: str | None = None
    hub: str | None = None
    hub_config: str | None = None
    target: Target | None = None
    generality: Generality | None = None
    paraphrases: str | None = None
    snippets: str | None = None
    exclude: tuple[Flag, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @property
    def is_built_in(self) -> bool:
        return self.path is None and self.hub is None

    @property
    def source(self) -> str:
        """Where the records are, for messages."""
        return self.path or (f"hub data set {self.hub}, split {self.split}" if self.hub else "built in")

    def check_source(self) -> None:
        """Raises `InputError` for an unknown name and for fields that do not go together."""
        if self.path is not None and self.hub is not None:
            raise InputError(f"data set '{self.name}' has both 'path: {self.path}' and 'hub: {self.hub}'; "
                             "leave one out")
        if self.hub is None and self.hub_config is not None:
            raise InputError(f"data set '{self.name}': 'hub_config: {self.hub_config}' is for data sets with 'hub'")
        if self.hub is not None and "split" not in self.model_fields_set:
            raise InputError(f"data set '{self.name}' has a hub but no split: add 'split: test', or what it is called "
                             f"in {self.hub}")
        if self.path is not None and self.split != "eval":
            raise InputError(f"data set '{self.name}': a file has no splits; leave 'split: {self.split}' out")
        if not self.is_built_in:
            return
        if self.name not in BUILT_IN:
            raise unknown("data set", self.name, BUILT_IN)
        if self.split not in get_args(Split):
            raise unknown(f"split of data set '{self.name}'", self.split, get_args(Split))
        for switch in ("format", *SWITCHES):
            if (value := getattr(self, switch)) is not None:
                raise InputError(f"data set '{self.name}' is built in; leave '{switch}: {value}' out")

    def check_switches(self, format: Format) -> None:
        """Raises `InputError` for a switch that means nothing for a format."""
        for switch, formats in SWITCHES.items():
            if (value := getattr(self, switch)) is not None and format not in formats:
                raise InputError(f"data set '{self.name}': '{switch}' is for {' and '.join(formats)}, and this is "
                                 f"{format}; leave '{switch}: {value}' out")
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


def training_spec(spec: DatasetSpec, limit: int | None = None) -> DatasetSpec:
    """The cases that methods to be judged on a data set are trained on: of a built-in one the other half, else what
    `train` names. Raises `InputError` where there are none."""
    exclude = tuple(flag for flag in spec.exclude if flag != "train-overlap")
    if spec.is_built_in:
        if spec.train is not None:
            raise InputError(f"data set '{spec.name}' is built in: it has training cases of its own, so leave out "
                             f"'train: {spec.train}'")
        if spec.split != "eval":
            raise InputError(f"data set '{spec.name}' with 'split: {spec.split}' holds what trained editors learn "
                             "from; use 'split: eval' for them")
        return DatasetSpec(name=spec.name, split="train", limit=limit, exclude=exclude)
    if spec.train is None:
        what = "SPLIT', another of its splits" if spec.hub else "FILE', a file of any format"
        raise InputError(f"data set '{spec.name}' has no training cases: add 'train: {what} whose facts are not in it")
    place = {"hub": spec.hub, "hub_config": spec.hub_config, "split": spec.train} if spec.hub else {"path": spec.train}
    return DatasetSpec(name=spec.name, target=spec.target, paraphrases=spec.paraphrases, exclude=exclude, limit=limit,
                       **place)
