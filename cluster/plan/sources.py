"""What a plan reads: models' configurations, data sets, texts. All is there, or else the plan is refused; or else it is
assumed, where only the cost of a campaign is asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.campaign.files import is_missing
from cluster.campaign.spec import ModelSpec
from cluster.plan.refs import ModelRef
from cluster.plan.resolve import resolve_model
from editors.core.errors import InputError
from editors.core.places import shown
from evaluators.cases import Case
from evaluators.datasets import TESTBED_CORPUS, Dataset, DatasetSpec, corpus_digest, load_dataset
from evaluators.datasets.keeping import CaseFile
from evaluators.scoring.measures.base import Measure

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from editors.core.editor import Editor, EditorConfig

CASES = 1000  # of a data set that is missing and has no limit, as most tables of Yao et al. 2023 have


class Sources:
    """What is there. Raises `InputError` for what is not."""

    def model(self, spec: ModelSpec, threads: int) -> tuple[ModelRef, PretrainedConfig]:
        return resolve_model(spec, threads)

    def content(self, method: type[Editor], config: EditorConfig, model: PretrainedConfig) -> dict[str, str]:
        """Digests of the models that an editor's settings name, which are looked at."""
        method.check(config, model)
        return method.content(config)

    def dataset(self, spec: DatasetSpec) -> Dataset:
        return load_dataset(spec)

    def measure(self, measure: Measure) -> Measure:
        """With what it reads from files."""
        return measure.prepared()

    def corpus(self, name: str) -> str:
        """A text's digest."""
        return corpus_digest(name)


class Assumed(Sources):
    """What is there, and guesses for what is not, each of which it tells. Tasks that are planned so have ids of their
    own, and can never be run: nothing is known of what they would be done with."""

    def __init__(self) -> None:
        self._told: dict[str, None] = {}

    @property
    def told(self) -> tuple[str, ...]:
        """What was assumed, a line each."""
        return tuple(self._told)

    def model(self, spec: ModelSpec, threads: int) -> tuple[ModelRef, PretrainedConfig]:
        """Without a network: a model that is neither in a folder nor in the local cache has its published shape."""
        from editors.core.models.architectures import architecture
        from editors.core.models.published import is_at_hand, published_config

        path = spec.path or spec.name
        config = None if is_at_hand(path) else published_config(path)
        if config is None:
            return resolve_model(spec, threads)
        if spec.dtype in architecture(config, path).overflows:
            raise InputError(f"model '{path}' cannot be computed in {spec.dtype}; take 'dtype: bfloat16' or 'dtype: "
                             "float32'")
        self._tell(f"model {path}: not on this machine, so planned by its published shape")
        return ModelRef.of(path, _name("model", path), spec.dtype, config, threads), config

    def content(self, method: type[Editor], config: EditorConfig, model: PretrainedConfig) -> dict[str, str]:
        from editors.core.models.published import is_at_hand

        named = {field: path for field in config.models if (path := getattr(config, field)) is not None}
        missing = [path for path in named.values() if not (Path(path).is_absolute() or is_at_hand(path))]
        if not missing:
            return super().content(method, config, model)
        for path in missing:
            self._tell(f"model {path}, for {method.name}: not on this machine, so not looked at")
        return {field: _name("model", path) for field, path in named.items()}

    def dataset(self, spec: DatasetSpec) -> Dataset:
        if spec.path is None or not is_missing(spec.path):
            return load_dataset(spec)
        spec.check_source()
        count = spec.limit or CASES
        self._tell(f"file {shown(spec.path)}: not there, so taken as {count} cases"
                   + ("" if spec.limit else ", as the campaign has no limit for it"))
        cases = CaseFile()
        for number in range(count):
            subject = f"{spec.path} {number}"
            cases.add(Case(id=str(number), subject=subject, prompt=subject, target_new="?", target_true="!"))
        return Dataset(spec, cases.cases(), digest=_name("cases", spec.path)[:16])

    def measure(self, measure: Measure) -> Measure:
        missing: list[str] = []

        def see(path: str) -> str:
            if path != TESTBED_CORPUS and is_missing(path):
                missing.append(path)
            return path

        measure.located(see)
        for path in missing:
            self._no_text(path)
        return measure if missing else measure.prepared()

    def corpus(self, name: str) -> str:
        if name == TESTBED_CORPUS or not is_missing(name):
            return corpus_digest(name)
        self._no_text(name)
        return _name("text", name)

    def _no_text(self, path: str) -> None:
        self._tell(f"file {shown(path)}: not there, so taken as long enough a text")

    def _tell(self, line: str) -> None:
        self._told[line] = None


def _name(what: str, path: str) -> str:
    """In the place of a digest."""
    return f"assumed-{hashlib.sha256(f'{what} {path}'.encode()).hexdigest()[:16]}"
