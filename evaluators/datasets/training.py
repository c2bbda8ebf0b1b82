"""What trained methods learn from before they are judged on a data set: which cases, and each as an example."""

from __future__ import annotations

from editors.core.errors import InputError
from editors.core.examples import Example, Question
from editors.core.places import shown
from evaluators.cases import Case, EditedFacts
from evaluators.datasets.spec import DatasetSpec


def training_spec(spec: DatasetSpec, limit: int | None = None) -> DatasetSpec:
    """The cases that methods to be judged on a data set are trained on: of a built-in one the other half, else what
    `train` names. Raises `InputError` where there are none."""
    exclude = tuple(flag for flag in spec.exclude if flag != "train-overlap")
    if spec.is_built_in:
        if spec.train is not None:
            raise InputError(f"data set '{spec.name}' is built in: it has training cases of its own, so leave out "
                             f"'train: {shown(spec.train)}'")
        if spec.split != "eval":
            raise InputError(f"data set '{spec.name}' with 'split: {spec.split}' holds what trained editors learn "
                             "from; use 'split: eval' for them")
        return DatasetSpec(name=spec.name, built_in=spec.built_in, split="train", limit=limit, exclude=exclude)
    if spec.train is None:
        what = "SPLIT', another of its splits" if spec.hub else "FILE', a file of any format"
        raise InputError(f"data set '{spec.name}' has no training cases: add 'train: {what} whose facts are not in it")
    place = {"hub": spec.hub, "hub_config": spec.hub_config, "split": spec.train} if spec.hub else {"path": spec.train}
    return DatasetSpec(name=spec.name, target=spec.target, paraphrases=spec.paraphrases, exclude=exclude, limit=limit,
                       **place)


def training_example(case: Case) -> Example:
    """A case as an edit to practise: what is asked before and after an edit becomes what must stay."""
    facts = EditedFacts.of([case])
    unchanged = tuple(Question(probe.prompt, probe.target)
                      for probe in (*case.neighbourhood, *case.attributes, *case.forgetfulness, *case.unrelated)
                      if not facts.cover(probe))
    return Example(case.request(), case.paraphrases, unchanged)
