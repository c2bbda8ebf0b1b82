"""Tasks of lm-evaluation-harness on the built-in GPT-J, with an edit that changes the answer to one question."""

from __future__ import annotations

import json
import sys
from functools import partial

import pytest
import torch
from typer.testing import CliRunner

from editors import get_editor, resolve_config
from editors.core.models.loading import load_model
from editors.core.patches.overlay import overlay
from editors.core.patches.patch import Dense, LowRank, Patch, Route
from evaluators.harness import wrap
from evaluators.models import model_path
from evaluators.testbed.cases import testbed_cases as built_in_cases
from jobs.cli import app

TASK = """\
task: old-facts
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{[old, new]}}"
doc_to_target: 0
metric_list: [{metric: acc}]
"""
WIDTH = 128


@pytest.fixture(scope="module")
def model():
    return load_model(model_path("testbed-gptj"))


@pytest.fixture(scope="module")
def cases():
    return built_in_cases("cloze", "eval")[:5]


@pytest.fixture(scope="module")
def edit(model, cases):
    """Changes the first case's answer alone."""
    [patch] = get_editor("ft")(model, resolve_config("ft", model.module.config)).edit_each([cases[0].request()])
    return patch


@pytest.fixture
def invoke():
    return lambda *arguments: CliRunner().invoke(app, ["harness", *map(str, arguments)])


@pytest.fixture
def lm_eval(monkeypatch, tmp_path):
    """The harness, where it is installed, without its own tasks, whose index takes long; and a cache of data sets that
    is thrown away."""
    tasks = pytest.importorskip("lm_eval.tasks", reason="the harness is an extra")
    monkeypatch.setattr(tasks, "TaskManager", partial(tasks.TaskManager, include_defaults=False))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def own_tasks(cases, tmp_path):
    """A folder with a task that asks for the true one of two answers."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps({"prompt": case.prompt, "old": case.target_true, "new": case.target_new}) + "\n"
                            for case in cases))
    (folder / "old-facts.yaml").write_text(TASK.replace("DATA", json.dumps(str(data))))
    return folder


def save(path, patch):
    patch.save(path)
    return path


def low_rank(module, inside=WIDTH):
    return Patch((LowRank(module, torch.ones(WIDTH, 1), torch.ones(inside, 1)),))


def logprob(model, prompt, answer):
    batch = model.collate([model.encode(prompt, answer)])
    return model.target_logits(batch).log_softmax(-1).gather(1, batch.target[:, None]).sum().item()


def share_right(model, cases):
    """In a plain loop: how often the true answer is more probable than the new one, given the prompt."""
    def logprob(prompt, answer):
        ids = model.tokenizer.encode(prompt, add_special_tokens=False)
        more = model.tokenizer.encode(f" {answer}", add_special_tokens=False)
        logs = model.module(torch.tensor([ids + more])).logits[0].log_softmax(-1)
        return sum(logs[len(ids) - 1 + number, token].item() for number, token in enumerate(more))

    return sum(logprob(case.prompt, case.target_true) > logprob(case.prompt, case.target_new)
               for case in cases) / len(cases)


def test_an_edit_changes_the_answer_to_its_question(lm_eval, invoke, own_tasks, model, cases, edit, tmp_path):
    out = tmp_path / "out.json"
    result = invoke("testbed-gptj", "--tasks", "old-facts", "--include-path", own_tasks, "--out", out,
                    "--patch", save(tmp_path / "edit.safetensors", edit))
    assert result.exit_code == 0, result.output
    record = json.loads(out.read_text())
    [change] = [change for change in record["results"] if change["metric"] == "acc"]
    with overlay(model, edit):
        after = share_right(model, cases)
    before = share_right(model, cases)
    assert (change["unedited"], change["edited"]) == pytest.approx((before, after))
    assert change["difference"] == pytest.approx(-1 / len(cases)) and change["unedited_error"] is not None
    assert record["digest"] == model.digest and len(record["patches"]) == 1
    assert "old-facts" in result.stdout and f"{after:.4f}" in result.stdout and "-0.2000" in result.stdout
    assert [file.name for file in tmp_path.glob("*out.json*")] == ["out.json"]


@pytest.mark.parametrize("name", ["testbed-gptj", "testbed-t5"])
def test_the_harness_asks_the_very_model_that_is_edited(lm_eval, cases, name):
    """Log-probabilities and what is written on, against the model's own; wrapping changes no weight."""
    from lm_eval.api.instance import Instance

    model = load_model(model_path(name))
    weights = {key: value.clone() for key, value in model.module.state_dict().items()}
    [patch] = get_editor("ft")(model, resolve_config("ft", model.module.config)).edit_each([cases[0].request()])
    wrapped = wrap(model, 2)
    pairs = [(case.prompt, f" {answer}") for case in cases for answer in (case.target_true, case.target_new)]
    pairs += [(cases[0].paraphrases[-1], f" {cases[0].target_new}")]
    settings = {"until": ["."], "max_gen_toks": 8, "do_sample": False}
    for edit in (Patch(), patch):
        with overlay(model, edit):
            found = wrapped.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs])
            [written] = wrapped.generate_until([Instance("generate_until", {}, (cases[0].prompt, settings), 0)])
            expected = [logprob(model, *pair) for pair in pairs]
        assert [value for value, _ in found] == pytest.approx(expected, abs=1e-4)
        assert written.startswith(f" {cases[0].target_new}") == bool(edit), written
    assert all(torch.equal(value, weights[key]) for key, value in model.module.state_dict().items())


def test_patches_add_up_and_questions_can_be_limited(lm_eval, invoke, own_tasks, edit, tmp_path):
    """An edit and its opposite are none; the first question alone is the edited one."""
    [term] = edit.terms
    opposite = Patch((Dense(term.module, -term.weight, -term.bias),))
    files = [save(tmp_path / f"{number}.safetensors", patch) for number, patch in enumerate((edit, opposite))]

    def differences(*chosen):
        arguments = [argument for file in chosen for argument in ("--patch", file)]
        result = invoke("testbed-gptj", "--tasks", "old-facts", "--include-path", own_tasks, "--limit", 1,
                        "--out", tmp_path / "out.json", *arguments)
        assert result.exit_code == 0, result.output
        return [change["difference"] for change in json.loads((tmp_path / "out.json").read_text())["results"]]

    assert differences(files[0]) == [-1]
    assert differences(*files) == [0]
    assert differences() == [None]


@pytest.mark.parametrize(("patch", "reason"), [
    (Patch((Route(side="0", memory=(("a", "b"),)),)), "routes questions to a second model"),
    (low_rank("transformer.h.99.mlp.fc_out"), "does not fit model 'testbed-gptj'"),
    (low_rank("transformer.h.0.mlp.fc_out", inside=3), "does not fit model 'testbed-gptj'")])
def test_patches_the_model_cannot_carry_are_refused(lm_eval, invoke, own_tasks, tmp_path, patch, reason):
    file = save(tmp_path / "p.safetensors", patch)
    result = invoke("testbed-gptj", "--tasks", "old-facts", "--include-path", own_tasks, "--patch", file,
                    "--out", tmp_path / "out.json")
    assert result.exit_code == 2 and reason in result.stderr and str(file) in result.stderr
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(("changes", "message"), [
    ({"--tasks": "old-fact"}, "unknown task 'old-fact'. Did you mean 'old-facts'?"), ({"--tasks": ","}, "no task"),
    ({"--include-path": "nowhere"}, "there is no folder 'nowhere'"), ({"--out": "nowhere/o.json"}, "cannot write to"),
    ({"--patch": "absent"}, "there is no patch file 'absent'"), ({"--device": "tpx"}, "cannot use 'tpx'")])
def test_wrong_input_ends_with_2(lm_eval, invoke, own_tasks, tmp_path, changes, message):
    options = {"--tasks": "old-facts", "--include-path": own_tasks, "--out": tmp_path / "out.json", **changes}
    result = invoke("testbed-gptj", *(part for option in options.items() for part in option))
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.output


def test_data_that_cannot_be_read_ends_with_2(lm_eval, invoke, own_tasks, tmp_path):
    (own_tasks / "questions.jsonl").unlink()
    result = invoke("testbed-gptj", "--tasks", "old-facts", "--include-path", own_tasks, "--out", tmp_path / "o.json")
    assert result.exit_code == 2 and "cannot read the data of old-facts" in result.stderr


def test_without_the_harness_it_says_how_to_install_it(invoke, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    result = invoke("testbed-gptj", "--tasks", "piqa", "--out", tmp_path / "out.json")
    assert result.exit_code == 2 and "pip install 'lm-eval" in result.stderr
