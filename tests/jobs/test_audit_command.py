"""`editfleet audit`: what it prints and writes."""

import json

import pytest
from support.tokenizers import sentencepiece
from typer.testing import CliRunner

from evaluators.models import model_path
from jobs.cli import app

EDIT = {"prompt": "Ann plays the", "subject": "Ann", "target_new": "harp"}


@pytest.fixture
def invoke():
    return lambda *arguments: CliRunner().invoke(app, ["audit", *map(str, arguments)])


@pytest.fixture
def write(tmp_path):
    def write(*records, name="edits.json"):
        path = tmp_path / name
        path.write_text(json.dumps(records), encoding="utf-8")
        return path

    return write


def test_counts_and_cases(invoke, write, tmp_path):
    data = write(EDIT, EDIT | {"target_new": "drum"}, EDIT | {"id": "odd", "target_true": "harp"}, {"prompt": 1})
    result = invoke(data, "--json", tmp_path / "audit.json", "--train", write(EDIT, name="train.json"), "--show", 1)
    assert result.exit_code == 0, result.output
    for part in ("no-op", "of 3", "33.3%", "  record 3: record 3 (line 1): subject: Field required",
                 "  odd: the new target 'harp' is the true answer", "contradiction, 2 cases:", "  ... and 1 more",
                 "train-overlap, 3 cases:"):
        assert part in result.stdout, part
    written = json.loads((tmp_path / "audit.json").read_text())
    assert {flag: found["count"] for flag, found in written["flags"].items()} == {
        "no-op": 1, "subject-missing": 0, "target-leak": 0, "contradiction": 2, "duplicate": 1, "train-overlap": 3}
    assert written["data"]["source"] == str(data) and written["skipped"][0]["case_id"] == "record 3"
    assert {path.name for path in tmp_path.iterdir()} == {"audit.json", "edits.json", "train.json"}


def test_built_in_data_sets(invoke):
    result = invoke("testbed-cloze")
    assert result.exit_code == 0 and "needs --train" in result.stdout
    assert result.stdout.count("needs --model") == 2


def test_a_model_tells_what_it_cannot_read(invoke, write, tmp_path):
    """A T5's folder without its weights, and with a tokenizer that reads letters alone."""
    config = json.loads((model_path("testbed-t5") / "config.json").read_text())
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    sentencepiece().save_pretrained(tmp_path / "model")
    data = write(EDIT | {"id": "unread", "target_new": "Ω"}, EDIT | {"id": "sound"},
                 EDIT | {"id": "odd", "paraphrases": ["It {is} so. Ann plays"]})
    result = invoke(data, "--model", tmp_path / "model", "--json", tmp_path / "audit.json")
    assert result.exit_code == 0, result.output
    assert "unusable, 1 case:\n  unread: rewrite 0: the answer 'Ω' has characters" in result.stdout
    flags = json.loads((tmp_path / "audit.json").read_text())["flags"]
    assert flags["unusable"]["count"] == 1
    assert [found["id"] for found in flags["unknown-characters"]["cases"]] == ["odd"]


def test_notes_are_shown(invoke, write):
    flat = EDIT | {"case_id": 1, "ground_truth": "lute", "rephrase_prompt": "Ann is", "locality_prompt": "Bo is",
                   "locality_ground_truth": "old"}
    assert "82.8 %" in invoke(write(flat)).stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (["testbed-close"], "Did you mean 'testbed-cloze'"), (["absent.json"], "cannot read 'absent.json'"),
    (["testbed-cloze", "--format", "zsr"], "unknown format 'zsr'. Did you mean 'zsre'"),
    (["testbed-cloze", "--target", "pred"], "unknown target 'pred'"),
    (["testbed-cloze", "--format", "zsre"], "leave 'format: zsre' out"),
    (["testbed-cloze", "--model", "no/such/folder"], "cannot load model 'no/such/folder'"),
    (["testbed-cloze", "--json", "no/such/folder/a.json"], "cannot write to 'no/such/folder/a.json'"),
])
def test_wrong_input(invoke, arguments, message):
    result = invoke(*arguments)
    assert result.exit_code == 2 and message in result.stderr, result.output
