"""Trained editors on the built-in models take one's own facts with nothing said of training."""

from __future__ import annotations

import pytest
from support.refusals import refused
from typer.testing import CliRunner

from editors.core.artefacts import Artefact
from editors.core.patches.patch import Patch
from evaluators.testbed.cases import testbed_cases as built_in_cases
from evaluators.testbed.learned import find_learned
from jobs.cli import app

GPTJ = ("--model", "testbed-gptj")
CASE = built_in_cases("cloze", "eval")[0]
FACT = ("--prompt", CASE.prompt, "--subject", CASE.subject, "--target", CASE.target_new)


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("editor", ["mend", "ke", "serac"])
def test_own_facts_are_edited_by_what_comes_with_editfleet(tmp_path, editor):
    said = run("edit", *GPTJ, "--editor", editor, *FACT, "--out", tmp_path / "patch")
    assert "100.0 % of edits hold" in said, said
    made = Patch.load(tmp_path / "patch")
    assert made.origin.makings[0].artefact == Artefact.load(find_learned(editor, made.origin.model.digest)).digest
    assert CASE.target_new in run("chat", *GPTJ, "--patch", tmp_path / "patch", "--prompt", CASE.prompt, "--tokens", 6)


def test_settings_that_nothing_was_trained_with_are_refused(tmp_path):
    refused(["edit", *GPTJ, "--editor", "mend", *FACT, "--set", "rank=4", "--out", tmp_path / "patch"],
            ["Error: --artefact: ", "was trained with rank 128, not 4: leave rank out"])
    assert not (tmp_path / "patch").exists()
