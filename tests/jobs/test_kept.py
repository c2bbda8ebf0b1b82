"""Edits that are kept: `editfleet edit`, `show`, `score`, `compose`, `undo` and `chat`; and what `export` makes of
them, asked by transformers and PEFT alone, in a process that has never heard of EditFleet."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import warnings

import pytest
import torch
from safetensors.torch import save_file
from support.plain import asked_plainly
from support.refusals import refused
from typer.testing import CliRunner

from editors import EditRequest, edit, load_model, overlay
from editors.core.patches.patch import TERMS, Dense, LowRank, Neurons, Patch, Route
from evaluators.testbed import MODELS
from evaluators.testbed.cases import testbed_cases as built_in_cases
from evaluators.testbed.learned import find_learned
from jobs.cli import app
from jobs.console import exit_codes

GPTJ = ("--model", "testbed-gptj")
MADE = {"ft": (), "memit": ("--tokens", 3000), "rome": ("--tokens", 3000), "mend": ()}


def run(*arguments, typed=None):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def cases():
    return built_in_cases("cloze", "eval")[:3]


@pytest.fixture(scope="module")
def made(tmp_path_factory, cases):
    """Patches of three facts on the built-in GPT-J by four methods, and what was said when they were made."""
    folder = tmp_path_factory.mktemp("made")
    said = {editor: run("edit", *GPTJ, "--editor", editor, "--facts", "testbed-cloze", "--limit", 3, *more,
                        "--out", folder / f"{editor}.safetensors").stdout for editor, more in MADE.items()}
    return folder, said


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """Three edits, made one after another by a method that is quick."""
    file = tmp_path_factory.mktemp("stream") / "stream.safetensors"
    run("edit", *GPTJ, "--editor", "mend", "--facts", "testbed-cloze", "--limit", 3, "--stream", "--out", file)
    return file


@pytest.fixture(scope="module")
def gptj():
    return load_model(MODELS["testbed-gptj"])


def logits(model, cases, patch):
    batch = model.collate([model.encode(case.prompt, case.target_new) for case in cases])
    with torch.no_grad(), overlay(model, patch.compact()):
        return model.target_logits(batch), batch


def test_merged_models_and_adapters_answer_as_the_overlay_does(made, cases, gptj, tmp_path):
    pytest.importorskip("peft", reason="PEFT is not installed (pip install 'editfleet[dev]')")
    folder, _ = made
    patches = {editor: Patch.load(folder / f"{editor}.safetensors") for editor in MADE}
    for editor in MADE:
        for form, more in (("merged", ()), ("peft", ("--rank", 10_000) if editor == "ft" else ())):
            said = run("export", "testbed-gptj", "--patch", folder / f"{editor}.safetensors", "--as", form, *more,
                       "--out", tmp_path / f"{editor}-{form}").stdout
            assert ("loses" in said) == (editor == "ft" and form == "peft")
    _, batch = logits(gptj, cases, Patch())
    found = asked_plainly(MODELS["testbed-gptj"], sorted(tmp_path.glob("*-*")), batch, tmp_path)
    assert set(found) == {f"{editor}-{form}" for editor in MADE for form in ("merged", "peft")}
    unedited, _ = logits(gptj, cases, Patch())
    for name, plain in found.items():
        expected, _ = logits(gptj, cases, patches[name.partition("-")[0]])
        torch.testing.assert_close(plain, expected, atol=1e-4, rtol=0)
        assert (expected - unedited).abs().max() > 0.5
    card = (tmp_path / "rome-peft" / "README.md").read_text()
    assert "LoRA adapter" in card and "editor: rome" in card and "(digest" in card


def test_what_goes_on_is_said_on_standard_error_alone(cases, tmp_path):
    def said(*arguments):
        result = run(*arguments)
        *lines, last = result.stderr.splitlines()
        assert re.fullmatch(r"done in \d+ s", last) and not set(lines) & set(result.stdout.splitlines())
        return lines

    file = tmp_path / "p"
    lines = said("edit", *GPTJ, "--editor", "rome", "--tokens", 3000, "--set", "steps=1", "--facts", "testbed-cloze",
                 "--limit", 2, "--out", file)
    assert lines == ["loading testbed-gptj",
                     "second moments of testbed-gptj: layers 2, over up to 3,000 tokens of testbed",
                     "editing 2 facts by rome", "asking about 2 facts, before and after"]
    assert said("chat", *GPTJ, "--patch", file, "--prompt", cases[0].prompt, "--tokens", 1) == ["loading testbed-gptj"]
    assert said("score", file, *GPTJ, "--facts", "testbed-cloze", "--limit", 1) == [
        "loading testbed-gptj", "asking about 1 fact, before and after"]
    assert said("export", "testbed-gptj", "--patch", file, "--out", tmp_path / "out") == [
        "reading testbed-gptj", f"writing {tmp_path / 'out'}"]


@pytest.mark.parametrize("editor", MADE)
def test_edits_are_made_checked_and_told(made, cases, editor):
    folder, said = made
    patch, table = Patch.load(folder / f"{editor}.safetensors"), said[editor]
    assert [fact.prompt for fact in patch.origin.facts] == [case.prompt for case in cases]
    assert patch.origin.model.name == "testbed-gptj" and patch.origin.makings[0].editor == editor
    assert len(patch.origin.parts) == (3 if editor == "rome" else 1)
    assert "before" in table and "after" in table and "3 edits of testbed-gptj" in table
    assert "of edits hold" in table and "of paraphrases agree" in table and "of neighbours" in table
    assert table.count(" yes ") == 3 or editor == "mend"


def test_show_tells_all_of_it(made):
    folder, _ = made
    said = run("show", folder / "memit.safetensors").stdout
    assert "model: testbed-gptj (digest " in said and "editor: memit, version" in said and '"layers"' in said
    assert "edits: 3 (digest" in said and "  3: " in said and "low-rank" in said and "rank 3" in said
    told = json.loads(run("show", folder / "ft.safetensors", "--json").stdout)
    patch = Patch.load(folder / "ft.safetensors")
    assert told["origin"]["model"]["digest"] == patch.origin.model.digest and told["terms"][0]["kind"] == "dense"
    assert told["terms"][0]["norm"] == pytest.approx(float(patch.terms[0].weight.norm()), rel=1e-5)
    low = json.loads(run("show", folder / "rome.safetensors", "--json").stdout)["terms"][0]
    [term] = Patch.load(folder / "rome.safetensors").compact().terms
    assert low["norm"] == pytest.approx(float((term.a @ term.b.T).norm()), rel=1e-4)


def test_scores_are_the_protocols_own(cases, gptj, tmp_path):
    """A batch of three, made and scored by a protocol, fares as the patch that was kept of it."""
    from editors import get_editor, resolve_config
    from evaluators.protocols.batch import BatchProtocol
    from evaluators.scoring.judge import baseline

    editor = get_editor("ft")(gptj, resolve_config("ft", gptj.module.config, {"steps": 3}))
    edit(gptj, "ft", [case.request() for case in cases], steps=3).save(tmp_path / "p")
    before, _ = baseline(gptj, cases)
    expected = {(each.case_id, each.metric): each.value
                for each in BatchProtocol(sizes=(3,)).run(editor, cases, before, 3).scores}
    told = json.loads(run("score", tmp_path / "p", *GPTJ, "--facts", "testbed-cloze", "--limit", 3, "--json").stdout)
    found = {(each["fact"], each["metric"]): each["value"] for each in told["facts"]}
    assert found == pytest.approx(expected, abs=1e-5)
    shown = run("score", tmp_path / "p", *GPTJ, "--facts", "testbed-cloze", "--limit", 4)
    assert "reliability.exact" in shown.stdout and "not among the patch's edits: 1 of 4 facts" in shown.stderr


def test_a_stream_is_undone_edit_by_edit(stream, cases, gptj, tmp_path):
    whole = Patch.load(stream)
    counts = [part.terms for part in whole.origin.parts]
    assert len(counts) == 3 and sum(counts) == len(whole.terms)
    result = run("undo", stream, "--edit", 2, "--out", tmp_path / "without")
    left = Patch.load(tmp_path / "without")
    assert cases[1].prompt in result.stdout.replace("\n", " ") and "2 edits left" in result.stdout
    assert [fact.prompt for fact in left.origin.facts] == [cases[0].prompt, cases[2].prompt]
    kept = whole.terms[:counts[0]] + whole.terms[sum(counts[:2]):]
    expected, _ = logits(gptj, cases, Patch(kept))
    torch.testing.assert_close(logits(gptj, cases, left)[0], expected)
    assert "stay as they were made" in result.stderr
    for _ in range(2):
        run("undo", tmp_path / "without", "--last", "--out", tmp_path / "without")
    assert not Patch.load(tmp_path / "without") and Patch.load(tmp_path / "without").origin.facts == ()
    left = Patch.load(tmp_path / "without")
    assert left.info == {} and "changes nothing" in run("show", tmp_path / "without").stdout
    for which in (("--edit", 1), ("--last",)):
        refused(["undo", tmp_path / "without", *which, "--out", tmp_path / "x"], ["the patch makes no edits"])


def test_sums_of_patches_make_all_their_edits(made, stream, cases, gptj, tmp_path):
    folder, _ = made
    said = run("compose", folder / "rome.safetensors", stream, "--out", tmp_path / "sum").stdout
    both = Patch.load(tmp_path / "sum")
    assert "6 edits of 2 patches" in said and [making.editor for making in both.origin.makings] == ["rome", "mend"]
    expected, _ = logits(gptj, cases, Patch.load(folder / "rome.safetensors") + Patch.load(stream))
    torch.testing.assert_close(logits(gptj, cases, both)[0], expected)
    taken = run("undo", tmp_path / "sum", "--edit", 1, "--out", tmp_path / "without").stdout
    assert cases[0].prompt in taken.replace("\n", " ")
    twice = run("compose", folder / "rome.safetensors", folder / "rome.safetensors", "--out", tmp_path / "x").stderr
    assert "edits that are there already: 3 of 6" in twice and "contradict" not in twice
    edit(gptj, "ft", [EditRequest(cases[0].prompt, cases[0].subject, "x")], steps=1).save(tmp_path / "other")
    contrary = run("compose", folder / "rome.safetensors", tmp_path / "other", "--out", tmp_path / "x").stderr
    assert "of one prompt with several targets: 1" in contrary and "there already" not in contrary


def test_chat_shows_both_answers(made, cases):
    folder, _ = made
    asked = ("chat", *GPTJ, "--patch", folder / "rome.safetensors", "--tokens", 6)
    by_option = run(*asked, "--prompt", cases[0].prompt)
    typed = run(*asked, typed=f"\n{cases[0].prompt}\n\n" + "word " * 200)
    assert typed.stdout == by_option.stdout and "reads at most" in typed.stderr
    assert "before" in typed.stdout and "after" in typed.stdout and cases[0].target_new in typed.stdout


def test_a_second_model_comes_by_its_artefact(gptj, cases, tmp_path, monkeypatch):
    """SERAC's patch names what it learned, and answers by it."""
    shipped = find_learned("serac", gptj.digest)
    monkeypatch.setattr("evaluators.testbed.learned.SHIPPED", tmp_path)
    run("edit", *GPTJ, "--editor", "serac", "--facts", "testbed-cloze", "--limit", 1, "--artefact", shipped,
        "--out", tmp_path / "p")
    asked = ("chat", *GPTJ, "--patch", tmp_path / "p", "--prompt", cases[0].prompt, "--tokens", 6)
    assert cases[0].target_new in run(*asked, "--artefact", shipped).stdout
    refused(asked, ["--artefact"])


KINDS = (
    LowRank("transformer.h.1.mlp.fc_out", torch.ones(2, 1), torch.ones(3, 1)),
    Dense("transformer.h.1.mlp.fc_out", torch.ones(2, 3), torch.ones(2)),
    Neurons("transformer.h.1.mlp", torch.ones(1, 2), torch.ones(2, 1), "relu", queries=torch.ones(4, 2)),
    Route(side="0", memory=(("Ann lives in", "Omerga"),)))


@pytest.mark.parametrize("term", KINDS)
def test_every_kind_of_term_comes_back_and_is_shown(gptj, tmp_path, term):
    Patch((term,)).save(tmp_path / "p")
    [again] = Patch.load(tmp_path / "p").terms
    shown = run("show", tmp_path / "p").stdout
    assert again.settings() == term.settings() and again.kind in shown
    assert ("`export` writes it" in shown) == isinstance(term, LowRank | Dense) != ("`export` refuses it" in shown)
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in term.tensors().items())
    assert {each.kind for each in KINDS} == set(TERMS)


# --- what is refused


def _cut(good, path):
    path.write_bytes(good.read_bytes()[:-10])


def _tampered(good, path):
    path.write_bytes(good.read_bytes()[:-1] + bytes([good.read_bytes()[-1] ^ 1]))


def _pickled(_, path):
    path.write_bytes(pickle.dumps({"a": torch.zeros(2)}))


def _torch(_, path):
    torch.save({"a": torch.zeros(2)}, path)


def _of_others(_, path):
    save_file({"a": torch.zeros(1)}, path, {"format": "pt"})


@pytest.mark.parametrize(("spoil", "problem"), [
    (_cut, "is not a safetensors file, or is damaged"), (_tampered, "is not what was written"),
    (_pickled, "is not a safetensors file"), (_torch, "is not a safetensors file"),
    (_of_others, "it holds something else"), (lambda good, path: None, "there is no patch file"),
    (lambda good, path: path.mkdir(), "it is a folder")])
@pytest.mark.parametrize("command", ["show", "score", "undo", "compose", "chat", "export"])
def test_files_that_are_no_patch_are_refused(made, tmp_path, command, spoil, problem):
    good = made[0] / "rome.safetensors"
    bad = tmp_path / "bad"
    spoil(good, bad)
    out = ("--out", tmp_path / "out")
    refused({"show": ["show", bad], "score": ["score", bad, *GPTJ, "--facts", "testbed-cloze", "--limit", 1],
             "undo": ["undo", bad, "--last", *out], "compose": ["compose", good, bad, *out],
             "chat": ["chat", *GPTJ, "--patch", bad, "--prompt", "x"],
             "export": ["export", "testbed-gptj", "--patch", bad, *out]}[command], ["bad", problem])
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory, cases):
    """The built-in GPT-J in a folder of its own, with another configuration, and a patch of it."""
    folder = tmp_path_factory.mktemp("foreign")
    shutil.copytree(MODELS["testbed-gptj"], folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps({**config, "note": "another"}))
    model = load_model(folder / "model")
    edit(model, "ft", [EditRequest(cases[0].prompt, cases[0].subject, "x")], steps=1).save(folder / "patch")
    return folder / "patch"


@pytest.mark.parametrize("command", ["score", "compose", "chat", "merged", "peft"])
def test_a_patch_of_another_model_is_refused(made, foreign, tmp_path, command):
    out = ("--out", tmp_path / "out")
    refused({"score": ["score", foreign, *GPTJ, "--facts", "testbed-cloze", "--limit", 1],
             "compose": ["compose", made[0] / "rome.safetensors", foreign, *out],
             "chat": ["chat", *GPTJ, "--patch", foreign, "--prompt", "x"],
             "merged": ["export", "testbed-gptj", "--patch", foreign, *out],
             "peft": ["export", "testbed-gptj", "--patch", foreign, "--as", "peft", *out]}[command],
            [str(foreign.parent), "testbed-gptj", "(digest ", "make the edits anew",
             *([f"was made for model '{foreign.parent / 'model'}'"] if command == "compose" else [])])
    assert not (tmp_path / "out").exists()


def test_a_patch_of_old_is_taken_with_a_warning(gptj, cases, tmp_path):
    patch = edit(gptj, "ft", [cases[0].request()], steps=1)
    Patch(patch.terms).save(tmp_path / "old")
    result = run("chat", *GPTJ, "--patch", tmp_path / "old", "--prompt", "It was", "--tokens", 2)
    assert "does not say which model it was made for" in result.stderr
    assert "does not say for which" in run("show", tmp_path / "old").stdout
    refused(["undo", tmp_path / "old", "--last", "--out", tmp_path / "x"], ["does not say which of its terms"])


def test_what_a_library_warns_of_is_told_without_its_place_in_the_code(capsys):
    with exit_codes():
        warnings.warn("take more text", stacklevel=1)
    assert capsys.readouterr().err == "take more text\n"


FACT = {"prompt": "Ann lives in", "subject": "Ann", "target_new": "Omerga"}
EDIT = ("edit", *GPTJ, "--editor", "ft", "--out", "OUT")
ELSEWHERE = ("edit", "--model", MODELS["testbed-gptj"])  # not by its name


@pytest.mark.parametrize(("arguments", "parts"), [
    (EDIT, ["take --facts"]),
    ((*EDIT, "--facts", "testbed-cloze", "--prompt", "x"), ["take --facts"]),
    ((*EDIT, "--prompt", "Ann lives in", "--subject", "Ann"), ["Error: --target is missing: give it how the model"]),
    ((*EDIT, "--prompt", "Ann lives in", "--subject", "Ann", "--target", ""), ["Error: --target is empty: give it"]),
    ((*EDIT, "--prompt", "Ann lives in", "--subject", "Bo", "--target", "x"), ["Error: --subject", "is not in prompt"]),
    ((*EDIT, "--facts", "FACTS", "--target", "x"), ["Error: --target is of a single edit"]),
    ((*EDIT, "--facts", "FACTS", "--set", "lyers=[3]"), ["Error: --set 'lyers': ", "Did you mean 'layers'"]),
    ((*EDIT, "--facts", "nowhere.jsonl"), ["nowhere.jsonl"]),
    ((*EDIT, "--facts", "EMPTY"), ["facts.jsonl", "target"]),
    ((*EDIT[:3], "--editor", "rom", *EDIT[5:], "--facts", "testbed-cloze"), ["Did you mean 'rome'"]),
    ((*ELSEWHERE, "--editor", "serac", *EDIT[5:], "--facts", "testbed-cloze"), ["'serac'", "--artefact"]),
    ((*EDIT[:3], "--editor", "serac", *EDIT[5:], "--facts", "FACTS", "--train", "FACTS"), ["'serac'", "--artefact"]),
    ((*EDIT[:3], "--editor", "ke", *EDIT[5:], "--facts", "FACTS", "--train", "FACTS", "--artefact", "x"),
     ["--train", "--artefact 'x': leave one out"]),
    ((*ELSEWHERE, "--editor", "mend", *EDIT[5:], "--facts", "FACTS"),
     ["has to be trained first", "--train", "--artefact"]),
    ((*EDIT[:3], "--editor", "rome", *EDIT[5:], "--facts", "FACTS", "--corpus", "nowhere.txt"), ["Error: --corpus: "]),
    ((*EDIT, "--facts", "FACTS", "--corpus", "nowhere.txt"), ["Error: --corpus: ", "'nowhere.txt' is neither"]),
    ((*EDIT[:3], "--editor", "mend", *EDIT[5:], "--facts", "FACTS", "--artefact", "x"), ["Error: --artefact: "]),
    (("chat", *GPTJ, "--patch", "ROME", "--prompt", ""), ["--prompt '': the prompt is empty"]),
    (("edit", "--model", "testbed-gpt", *EDIT[3:], "--facts", "FACTS"), ["Did you mean 'testbed-gptj'"]),
    (("chat", "--model", "testbed-gpt", "--patch", "ROME"), ["Did you mean 'testbed-gptj'"]),
    (("export", "testbed-gpt", "--patch", "ROME", "--out", "OUT"), ["Did you mean 'testbed-gptj'"]),
    ((*EDIT[:-1], "/nowhere/p", "--facts", "FACTS"), ["/nowhere/p"]),
    (("compose", "ROME", "--out", "OUT"), ["alone is a patch already"]),
    (("undo", "MEMIT", "--edit", "2", "--out", "OUT"), ["one of 3", "`editfleet compose`"]),
    (("undo", "MEMIT", "--edit", "9", "--out", "OUT"), ["edits 1 to 3"]),
    (("undo", "MEMIT", "--out", "OUT"), ["--edit", "--last"]),
    (("undo", "MEMIT", "--edit", "1", "--last", "--out", "OUT"), ["--edit", "--last"]),
    (("export", "testbed-gptj", "--patch", "ROME", "--stream", "--out", "OUT"), ["--stream"]),
    (("export", "testbed-gptj", "--patch", "ROME", "--rank", "3", "--out", "OUT"), ["--as peft"]),
    (("export", "testbed-gptj", "--patch", "ROME", "--as", "onnx", "--out", "OUT"), ["onnx"]),
    (("score", "ROME", *GPTJ, "--facts", "testbed-close"), ["Did you mean 'testbed-cloze'"]),
    (("chat", *GPTJ, "--patch", "ROME", "--device", "tpx"), ["cannot use 'tpx'"]),
])
def test_wrong_input_is_refused_and_nothing_written(made, tmp_path, arguments, parts):
    (tmp_path / "empty-facts.jsonl").write_text(json.dumps({**FACT, "target_new": ""}))
    (tmp_path / "facts.jsonl").write_text(json.dumps(FACT))
    places = {"OUT": tmp_path / "out", "EMPTY": tmp_path / "empty-facts.jsonl", "FACTS": tmp_path / "facts.jsonl",
              "ROME": made[0] / "rome.safetensors", "MEMIT": made[0] / "memit.safetensors"}
    refused([places.get(argument, argument) for argument in arguments], parts)
    assert not (tmp_path / "out").exists()


def test_edits_of_whole_weights_are_added_up(cases, tmp_path):
    """From a file of plain facts."""
    (tmp_path / "facts.jsonl").write_text("\n".join(json.dumps(
        {"prompt": case.prompt, "subject": case.subject, "target_new": case.target_new}) for case in cases[:2]))
    run("edit", *GPTJ, "--editor", "ft", "--facts", tmp_path / "facts.jsonl", "--stream", "--set", "steps=2",
        "--out", tmp_path / "p")
    patch = Patch.load(tmp_path / "p")
    assert len(patch.terms) == 1 and not patch.origin.apart and len(patch.origin.facts) == 2
    refused(["undo", tmp_path / "p", "--last", "--out", tmp_path / "x"], ["are added up"])
