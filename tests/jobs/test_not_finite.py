"""A model whose outputs are not finite: no command edits it, or tells numbers of it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.refusals import refused

from editors.core.patches.patch import LowRank, Patch

PROMPT = ["--prompt", "Ann lives in", "--subject", "Ann", "--target", "Omerga"]
FT = ["--editor", "ft", "--set", "layers=[1]", *PROMPT]


@pytest.fixture
def broken(tiny_folder, tmp_path):
    """The folder of a model with one number in the middle that is none."""
    folder = shutil.copytree(tiny_folder, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.2.mlp.fc_in.weight"][3, 5] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("arguments", [
    ["edit", "--model", "MODEL", *FT, "--out", "OUT"], ["export", "MODEL", *FT, "--out", "OUT"],
    ["chat", "--model", "MODEL", "--patch", "PATCH", "--prompt", "Ann lives in"],
    ["score", "PATCH", "--model", "MODEL", "--facts", "FACTS"],
    ["harness", "MODEL", "--tasks", "asked", "--include-path", "TASKS", "--out", "OUT"]], ids=lambda args: args[0])
def test_a_command_says_so_and_writes_nothing(broken, tmp_path, monkeypatch, arguments):
    if arguments[0] == "harness":
        pytest.importorskip("lm_eval", reason="the harness is an extra")
        monkeypatch.setattr("evaluators.harness.check_tasks", lambda names, manager: names)
        (tmp_path / "tasks").mkdir()
    weights = load_file(broken / "model.safetensors")
    wide, narrow = weights["transformer.h.1.mlp.fc_out.weight"].shape
    Patch((LowRank("transformer.h.1.mlp.fc_out", torch.zeros(wide, 1), torch.zeros(narrow, 1)),)).save(tmp_path / "p")
    (tmp_path / "facts.json").write_text(json.dumps([{"prompt": "Ann lives in", "subject": "Ann", "target_new": "x"}]))
    places = {"MODEL": broken, "PATCH": tmp_path / "p", "FACTS": tmp_path / "facts.json", "OUT": tmp_path / "out",
              "TASKS": tmp_path / "tasks"}
    refused([places.get(each, each) for each in arguments],
            [f"the unedited model '{broken}' has outputs that are not finite in float32", "take another dtype"])
    assert not (tmp_path / "out").exists()
