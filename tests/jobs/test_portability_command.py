"""`editfleet portability` from edits to a data set with portability questions, against a local server."""

from __future__ import annotations

import csv
import io
import json

import pytest
from support.chat_server import local_server, no_pauses, truth  # noqa: F401 - fixtures
from typer.testing import CliRunner

from evaluators.datasets import DatasetSpec, load_dataset
from jobs.cli import app


@pytest.fixture
def invoke(server, sleeps, tmp_path):
    """Runs `build` (on a source) or another subcommand, in one folder."""
    def run(command, *arguments, source="testbed-cloze", limit=12):
        if command == "build":
            arguments = [source, "--out", tmp_path / "made", "--endpoint", server.url, "--model", "gpt", "--limit",
                         limit, "--subject-models", "testbed-gptj", "--requests-per-minute", 1e6, *arguments]
        else:
            arguments = [tmp_path / "made", *arguments]
        return CliRunner().invoke(app, ["portability", command, *map(str, arguments)])

    return run


def judge(path, verdict):
    """Gives every row of a sheet the verdict that `verdict` has for its number."""
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"verdict": verdict(place)} for place, row in enumerate(rows))


def test_from_edits_to_a_data_set_with_one_chain_a_case(server, invoke, tmp_path):
    made = tmp_path / "made"
    built = invoke("build", "--subject-models", "testbed-t5")
    assert built.exit_code == 0, built.output
    summary = json.loads((made / "summary.json").read_text())
    assert summary["suggestions"] == 12 and summary["prompt_tokens"] == 1200
    known = summary["intersection"]["known"]
    assert set(summary["models"]) == {"testbed-gptj", "testbed-t5"}
    assert 0 < known <= min(score["known"] for score in summary["models"].values())
    assert "testbed-t5" in built.stdout and f"{summary['intersection']['percent']:.2f}" in built.stdout

    assert invoke("build", "--subject-models", "testbed-t5").exit_code == 0
    assert len(server.requests) == 12

    assert f"{known} candidates to review" in invoke("export").stdout
    judge(made / "review.csv", lambda place: ["no", "yes", ""][min(place, 2)])
    done = invoke("import")
    assert done.exit_code == 0 and f"1 yes, 1 no, {known - 2} without a verdict; 1 record:" in done.stdout
    assert f"{known - 1} records" in invoke("import", "--unreviewed", "keep").stdout

    records = json.loads((made / "portability.json").read_text())
    cases = load_dataset(DatasetSpec(name="made", path=str(made / "portability.json"), format="counterfact")).cases
    assert len(cases) == known - 1
    for record, case in zip(records, cases, strict=True):
        [chain] = case.portability
        assert chain.prompt == record["portability"]["New Question"] and chain.link is not None
        assert chain.target == chain.link.target and chain.link.subject == case.target_new


def test_a_zsre_file_keeps_its_records_as_they_are(invoke, tmp_path):
    assert invoke("build", limit=3).exit_code == 0
    asked = [candidate["record"]["requested_rewrite"]
             for candidate in json.loads((tmp_path / "made" / "candidates.json").read_text())]
    zsre = [{"src": edit["prompt"].replace("{}", edit["subject"]), "subject": edit["subject"], "pred": "x",
             "rephrase": "In other words?", "alt": edit["target_new"]["str"], "answers": [edit["target_true"]["str"]],
             "loc": "nq question: who?", "loc_ans": "nobody", "cond": "a >> b || c", "extra": [1, {"kept": None}]}
            for edit in asked] + [{"src": "", "subject": "", "alt": ""}]
    (tmp_path / "zsre.json").write_text(json.dumps(zsre))
    built = invoke("build", source=tmp_path / "zsre.json")
    assert built.exit_code == 0 and "1 record unusable:" in built.stdout, built.output
    invoke("export")
    assert invoke("import", "--unreviewed", "keep").exit_code == 0
    path = tmp_path / "made" / "portability.json"
    made = json.loads(path.read_text())
    assert made and all(record.pop("portability") and record in zsre for record in made)
    cases = load_dataset(DatasetSpec(name="made", path=str(path), format="zsre")).cases
    assert cases and all(len(case.portability) == 1 for case in cases)


def test_records_without_an_answer_end_the_build_with_1_and_the_same_command_completes_it(server, invoke):
    silent = "The Last Fihos"
    server.say = lambda subject, altered: 500 if subject == silent else truth(subject, altered)
    built = invoke("build", limit=3)
    assert built.exit_code == 1 and "1 record without an answer:" in built.stdout and "cloze-eval-00000" in built.stdout
    server.say = truth
    assert invoke("build", limit=3).exit_code == 0


@pytest.mark.parametrize(("text", "message"), [
    ("[]", "expected COUNTERFACT or ZsRE records, and there are none"),
    ("[1", "ends in the middle"),
    ('[{"src": "q", "subject": "s"}]', "record 0 is not of zsre's form: alt"),
])
def test_a_file_that_is_no_data_set_ends_the_command_with_2(server, invoke, tmp_path, text, message):
    (tmp_path / "edits.json").write_text(text)
    result = invoke("build", source=tmp_path / "edits.json")
    assert result.exit_code == 2 and message in result.stderr and not server.requests


def test_unknown_names_and_missing_builds_end_with_2_before_anything_is_asked(server, invoke, tmp_path):
    assert "Did you mean 'testbed-cloze'?" in invoke("build", source="testbed-close").stderr
    assert invoke("build", "--subject-models", str(tmp_path / "no-model")).exit_code == 2
    assert "there is no candidates.json" in invoke("export").stderr
    assert not server.requests
