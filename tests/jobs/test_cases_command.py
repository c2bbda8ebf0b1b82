"""`editfleet cases`: single edits of a store, chosen and shown."""

from __future__ import annotations

import json

import pytest
from support.stores import answers, campaign, rows, task
from typer.testing import CliRunner

from cluster.store.store import ResultKey, Store
from jobs.cli import app


@pytest.fixture
def shown(tmp_path):
    """Runs the command on a store of two editors; one edit of a hostile text."""
    store = Store.create(tmp_path)
    said = {"a1": [{}, {"question": "locality", "prompt": "Bern is in", "expected": "Chad", "unedited": "Chad",
                        "edited": "Peru", "right": 0.0},
                   {"case_id": "e", "relation": "P2", "subject": "[red]\x1b[31m\u202eoda", "edited_written": "Oslo"}],
            "a2": [{"editor": "rome", "patch_norm": None}]}
    for name, questions in said.items():
        store.write_table(ResultKey("rows", name), rows(0.5), {"seconds_each": 1.25},
                          answers(*({"task": name, **question} for question in questions)))
    store.write_campaign(campaign("c", task("a1"), task("a2")))
    return lambda *arguments: CliRunner().invoke(app, ["cases", str(tmp_path), *arguments], env={"COLUMNS": "200"})


def test_an_edit_is_shown_with_all_its_questions(shown):
    found = shown("--editor", "ft", "--case", "c")
    assert found.exit_code == 0, found.output
    assert "ft on m, d, single 1: c (Rome)\n  relation P1, change of weights 2.5, 1.25 s" in found.stdout
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in found.stdout.splitlines() if "│" in line]
    assert cells == [["reliability", "Rome is in", "Italy", "France", "Italy", "100 %"],
                     ["locality", "Bern is in", "Chad", "Chad", "Peru", "0 %"]]


def test_what_is_chosen(shown):
    def asked(*arguments):
        found = shown("--json", *arguments)
        assert found.exit_code == 0, found.output
        return [(row["editor"], row["case_id"], row["question"]) for row in map(json.loads, found.stdout.splitlines())]

    every = [("ft", "c", "reliability"), ("ft", "c", "locality"), ("ft", "e", "reliability"),
             ("rome", "c", "reliability")]
    assert asked() == every
    assert asked("--failed") == [every[1]]
    assert asked("--relation", "P2") == [every[2]] and asked("--editor", "rome") == [every[3]]
    assert asked("--limit", "1") == every[:2] and "more than 1 edits" in shown("--limit", "1").stderr


def test_nothing_in_a_text_is_obeyed(shown):
    for more in ([], ["--json"]):
        found = shown("--case", "e", *more)
        assert found.exit_code == 0 and "[red]" in found.stdout
        assert "\x1b" not in found.stdout and "\u202e" not in found.stdout
    assert "Oslo" in shown("--case", "e").stdout


@pytest.mark.parametrize(("arguments", "told"), [
    (["--editor", "roem"], "Did you mean 'rome'?"), (["--case", "zz"], "there is no case 'zz'"),
    (["--relation", "P9"], "there is no relation 'P9'")])
def test_what_there_is_none_of(shown, arguments, told):
    found = shown(*arguments)
    assert found.exit_code == 2 and told in found.stderr


def test_damaged_answers_are_named_and_the_rest_shown(shown, tmp_path):
    (tmp_path / "answers" / "a1.parquet").write_bytes(b"odd")
    found = shown()
    assert found.exit_code == 0 and "rome on m" in found.stdout
    assert "answers/a1 cannot be used: it has 3 bytes" in found.stderr and "it is left out" in found.stderr
    (tmp_path / "answers" / "a2.parquet").unlink()
    found = shown()
    assert found.exit_code == 2 and "'answers: false'" in found.stderr
