"""The commands as people use them: what they print, and their exit codes."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from support.campaigns import register

from cluster.driver import run_campaign
from cluster.store.store import Store
from editors.core.artefacts import Artefact
from editors.core.editor import Editor, EditorConfig
from editors.core.errors import CaseError
from jobs.console import CAMPAIGNS, find_campaign

KEYS = ["editor", "model", "dataset", "protocol", "edits", "metric", "mean", "low", "high", "n"]


def test_run_ends_with_the_table_the_counts_and_the_place(invoke, write_campaign, tmp_path):
    result = invoke("run", write_campaign(), "--out", tmp_path / "store")
    assert result.exit_code == 0, result.output
    for part in ("identity", "ft", "rome", "reliability", "testbed-cloze: 4 cases", "9 of 9 tasks done",
                 "9/9 tasks, 12/12 edits", str(tmp_path / "store")):
        assert part in result.stdout, part


def test_run_again_starts_no_workers(invoke, done, write_campaign, local_pool):
    result = invoke("run", write_campaign(), "--out", done)
    assert result.exit_code == 0 and "9 of 9 tasks done" in result.stdout
    assert len(local_pool.pools) == 1


def test_the_command_line_can_set_the_number_of_workers(invoke, write_campaign, tmp_path, local_pool):
    path = write_campaign(workers={"count": 5})
    assert invoke("run", path, "--out", tmp_path / "store", "--workers", 3).exit_code == 0
    assert local_pool.pools[0].room == 3


class Broken(Editor):
    name = "broken"
    version = 1
    Config = EditorConfig

    def edit_each(self, requests):
        raise RuntimeError("broken")


def test_failed_tasks_end_the_run_with_1_and_are_named_unless_they_are_borne(invoke, write_campaign, tmp_path,
                                                                            monkeypatch):
    register(monkeypatch, Broken)
    path = write_campaign(editors=["identity", "broken"])
    result = invoke("run", path, "--out", tmp_path / "store")
    assert result.exit_code == 1, result.output
    borne = invoke("run", path, "--out", tmp_path / "store", "--tolerate-failed-tasks")
    assert borne.exit_code == 0, borne.output
    for told in (result.stdout, borne.stdout):
        assert "2 tasks failed" in told and "broken on tiny: testbed-cloze, cases 1-2" in told
        assert "4 of 6 tasks done" in told and "identity" in told
    status = invoke("status", tmp_path / "store")
    assert status.exit_code == 0 and "2 tasks failed" in status.stdout


def test_what_is_never_borne(invoke, write_campaign, tmp_path, monkeypatch):
    register(monkeypatch, Broken)
    nothing = invoke("run", write_campaign(editors=["broken"]), "--out", tmp_path / "store", "--tolerate-failed-tasks")
    assert nothing.exit_code == 1 and "No case was scored" in nothing.stdout
    assert invoke("run", tmp_path / "none.yaml", "--tolerate-failed-tasks").exit_code == 2


def test_a_campaign_without_workers_is_never_borne(invoke, write_campaign, tmp_path, monkeypatch):
    done = tmp_path / "store"
    assert invoke("run", write_campaign(editors=["identity"]), "--out", done).exit_code == 0

    def abandon(*arguments):
        return replace(run_campaign(*arguments), abandoned=True)

    monkeypatch.setattr("jobs.run.run_campaign", abandon)
    assert invoke("run", write_campaign(editors=["identity"]), "--out", done, "--tolerate-failed-tasks").exit_code == 1


def test_unusable_cases_are_counted_and_named_and_the_exit_code_stays_0(invoke, write_campaign, tmp_path):
    def record(number, subject, prompt):
        return {"case_id": number, "requested_rewrite": {
            "prompt": prompt, "relation_id": "P1", "subject": subject, "target_new": {"str": "Rome"},
            "target_true": {"str": "Paris"}}, "paraphrase_prompts": [], "neighborhood_prompts": [],
            "attribute_prompts": [], "generation_prompts": []}

    (tmp_path / "cases.json").write_text(json.dumps([
        record(1, "Art", "{} lives in"), record(2, "Bo", "{} lives in"), record(3, " ", "Nobody lives in {}"),
        record(4, "Cy", "word " * 500 + "{} lives in")]))
    path = write_campaign(datasets=[{"name": "mine", "path": "cases.json", "format": "counterfact"}],
                          editors=["identity", {"name": "ft", "config": {"layers": [1], "steps": 1}}])
    result = invoke("run", path, "--out", tmp_path / "store")
    assert result.exit_code == 0, result.output
    assert "mine: 3 cases, 1 skipped:" in result.stdout
    assert "1 case could not be edited or scored:" in result.stdout
    assert "at most 128" in result.stdout and "(2 tasks)" in result.stdout


@pytest.mark.parametrize(("change", "message"), [
    ({"chunks": 3}, "Did you mean 'chunk'?"), ({"models": ["testbed-gpt"]}, "Did you mean 'testbed-gptj'?"),
    ({"editors": ["rom"]}, "Did you mean 'rome'?"), ({"datasets": [{"name": "d", "path": "no.json",
                                                                   "format": "counterfact"}]}, "no.json")])
@pytest.mark.parametrize("command", ["run", "plan"])
def test_wrong_campaigns_end_with_2_before_anything_starts(invoke, write_campaign, tmp_path, command, change, message):
    result = invoke(command, write_campaign(**change), "--out", tmp_path / "store")
    assert result.exit_code == 2
    assert message in result.stderr and "small.yaml, line" in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("arguments", [
    ("run", "quickstat", "--out", "x"), ("run", "absent.yaml", "--out", "x"), ("plan", "."),
    ("train", "quickstat", "--out", "x"), ("train", "quickstart"),
    ("status", "nowhere"), ("report", "nowhere"), ("run", "quickstart", "--out", "x", "--workers", "0"), ("nonsense",),
    ("report", "nowhere", "--format", "pdf")])
def test_wrong_arguments_end_with_2(invoke, arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2 and "Traceback" not in result.output and result.stderr


def remove(store, key):
    store.remove(key)


def damage(store, key):
    path = store.local(key)
    path.write_bytes(path.read_bytes()[::-1])


@pytest.mark.parametrize("harm", [remove, damage])
@pytest.mark.parametrize(("times", "code"), [(1, 0), (9, 1)])
def test_a_result_that_is_lost_while_a_campaign_runs_is_made_again(invoke, write_campaign, tmp_path, monkeypatch,
                                                                   harm, times, code):
    harmed = []

    def lose_one(plan, store, *arguments):
        progress = run_campaign(plan, store, *arguments)
        if len(harmed) < times:
            harmed.append(next(task for task in plan.tasks.values() if task.kind == "score").key)
            harm(store, harmed[-1])
        return progress

    monkeypatch.setattr("jobs.run.run_campaign", lose_one)
    ended = invoke("run", write_campaign(), "--out", tmp_path / "store")
    assert ended.exit_code == code and f"{9 if code == 0 else 8} of 9 tasks done" in ended.stdout, ended.stdout
    assert ("1 result went missing" in ended.stdout) == bool(code)


def test_a_campaign_that_scores_no_case_is_no_success(invoke, write_campaign, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluators.scoring.usable.check", refuse)
    ended = invoke("run", write_campaign(editors=["identity"]), "--out", tmp_path / "store")
    assert ended.exit_code == 1 and "No case was scored" in ended.stdout and "4 cases could not be" in ended.stdout


def refuse(model, case, measures, roles):
    raise CaseError("unreadable")


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp", "..", "a/b"])
def test_a_campaigns_name_leads_nowhere_else(invoke, write_campaign, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refused = invoke("run", write_campaign(name=name))
    assert refused.exit_code == 2 and f"'{name}' cannot be a folder's name" in refused.stderr
    assert not (tmp_path / "results").exists()


def test_run_without_a_place_goes_to_results_by_the_campaigns_name(invoke, write_campaign, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "done" not in invoke("plan", write_campaign()).stdout
    assert invoke("status").exit_code == 2
    assert invoke("run", write_campaign()).exit_code == 0
    assert Store.open(tmp_path / "results" / "small").campaigns()[0].name == "small"
    planned = invoke("plan", write_campaign()).stdout
    assert "All tasks are done" in planned and "What is done is in results/small" in planned
    shown = invoke("status")
    assert shown.exit_code == 0 and "results/small:" in shown.stdout and "9 of 9 tasks done" in shown.stdout


def test_memory_below_a_gibibyte_is_told_in_mebibytes(invoke, write_campaign):
    [row] = [line for line in invoke("plan", write_campaign()).stdout.splitlines() if "tiny (float32)" in line]
    weights, held, work, whole = [cell.strip() for cell in row.split("│")[2:6]]
    assert weights.endswith("MiB") and held.endswith("MiB")
    assert float(work) == 0.5 and 1.0 <= float(whole) < 1.1  # states that are kept, and what a process takes anyway


def test_a_place_that_cannot_be_written_ends_with_2(invoke, write_campaign, tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke("run", write_campaign(), "--out", tmp_path / "file" / "store")
    assert result.exit_code == 2 and "cannot write to store" in result.stderr


def test_each_protocol_has_its_table_and_left_out_cases_are_told(invoke, write_campaign, tmp_path):
    path = write_campaign(editors=["identity"], protocols=["single", {"name": "batch", "sizes": [3]},
                                                           {"name": "sequential", "lengths": [1, 4]}])
    result = invoke("run", path, "--out", tmp_path / "store")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("95 % confidence interval") == 3
    for command in (("plan", path), ("status", tmp_path / "store")):
        assert "batches of 3 leave out the last 1 of 4 cases" in invoke(*command).stdout
    markdown = invoke("report", tmp_path / "store", "--format", "markdown").stdout
    assert markdown.count("| editor |") == 3 and "protocol batch, edits 3" in markdown


def test_train_leaves_a_file_for_each_trained_editor(invoke, write_campaign, tmp_path, drilled):
    path = write_campaign(editors=["identity", "drilled"], training={"limit": 5})
    out = tmp_path / "a" / "files"
    result = invoke("train", path, "--out", out)
    assert result.exit_code == 0, result.output
    [file] = out.iterdir()
    assert file.name in result.stdout and "step 100, loss 0.5" in result.stdout
    assert "1 trained editor of 'small'" in result.stdout
    again = invoke("train", path, "--out", out)
    assert again.exit_code == 0 and "there already" in again.stdout and drilled.runs == 1
    assert invoke("run", path, "--out", tmp_path / "store").exit_code == 0
    trained = tmp_path / "store" / "artefacts" / file.name
    assert Artefact.load(trained).digest == Artefact.load(file).digest


def test_train_tells_which_training_cases_cannot_be_used(invoke, write_campaign, tmp_path, drilled):
    def case(name, words=1):
        return {"id": name, "prompt": f"{'very ' * words}{name} lives in", "subject": name, "target_new": "Rome",
                "paraphrases": [f"{name} is from"], "neighbourhood": [{"prompt": "Zoe lives in", "target": "Paris"}]}

    (tmp_path / "edits.json").write_text(json.dumps([case("Ann")]))
    (tmp_path / "lessons.json").write_text(json.dumps([*map(case, "abcde"), case("endless", 5000)]))
    path = write_campaign(editors=["drilled"], datasets=[
        {"name": "mine", "path": "edits.json", "train": "lessons.json", "format": "edits"}])
    result = invoke("train", path, "--out", tmp_path / "files")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert "1 of 6 training cases cannot be used: endless: rewrite 0: 15" in told


def test_train_can_be_taken_up_again(invoke, write_campaign, tmp_path, drilled, monkeypatch):
    path, train = write_campaign(editors=["drilled"], training={"limit": 5}), drilled.train
    found = []

    def interrupted(*arguments, checkpoint, **options):
        found.append(checkpoint.path.exists())
        checkpoint.path.write_bytes(b"half way")
        raise KeyboardInterrupt

    monkeypatch.setattr(drilled, "train", interrupted)
    for _ in range(2):
        result = invoke("train", path, "--out", tmp_path / "files")
        assert result.exit_code == 130 and "run the same command again" in result.stderr
    assert found == [False, True]
    monkeypatch.setattr(drilled, "train", train)
    assert invoke("train", path, "--out", tmp_path / "files").exit_code == 0
    assert [file.suffix for file in (tmp_path / "files").iterdir()] == [".safetensors"]


def test_plan_lists_tasks_and_what_is_done(invoke, write_campaign, tmp_path):
    path = write_campaign()
    result = invoke("plan", path)
    assert result.exit_code == 0 and "testbed-cloze: 4 cases" in result.stdout and "done" not in result.stdout
    invoke("run", write_campaign(editors=["identity"]), "--out", tmp_path / "store")
    lines = invoke("plan", write_campaign(), "--out", tmp_path / "store").stdout.splitlines()
    cells = {row[1]: row[3:10:2] for row in map(str.split, lines) if row and row[0] == "│" and row[1] != "tiny"}
    assert cells == {"baseline": ["2", "0", "2", "0"], "statistics": ["0", "0", "1", "0"],
                     "score": ["2", "0", "6", "12"]}


def test_plan_makes_no_store(invoke, write_campaign, tmp_path):
    assert invoke("plan", write_campaign(), "--out", tmp_path / "store").exit_code == 0
    assert not (tmp_path / "store").exists()


def test_status_tells_who_runs_a_campaign_and_what_its_workers_are_at(invoke, done):
    store = Store.open(done)
    with store.lease("small") as lease:
        lease.renew({"workers": 2, "starting": 1, "at": {"7": "rome on tiny: cases 1-2"}})
        told = invoke("status", done).stdout
        assert f"small is being run by process {os.getpid()} on " in told
        assert "2 workers, 1 coming up" in told and "worker 7: rome on tiny: cases 1-2" in told
        dead = store.driver().model_copy(update={"started": "long ago"})
        (done / "driver.json").write_text(dead.model_dump_json())
        assert "which is dead; running it again goes on" in invoke("status", done).stdout


def test_run_writes_its_log_where_it_is_told(invoke, write_campaign, tmp_path):
    assert invoke("run", write_campaign(), "--out", tmp_path / "store", "--log", tmp_path / "run.log").exit_code == 0
    events = [line.split()[1] for line in (tmp_path / "run.log").read_text().splitlines()]
    assert events[0] == "campaign-start" and events[-1] == "campaign-end" and events.count("task-done") == 9


def test_the_log_is_in_the_store_too_and_status_says_where(invoke, write_campaign, tmp_path):
    assert invoke("run", write_campaign(), "--out", tmp_path / "store").exit_code == 0
    [log] = (tmp_path / "store" / "logs").iterdir()
    events = [line.split()[1] for line in log.read_text().splitlines()]
    assert events[0] == "campaign-start" and events[-1] == "campaign-end" and events.count("task-done") == 9
    assert f"log: {log}" in invoke("status", tmp_path / "store").stdout


def test_status_of_a_finished_campaign(invoke, done):
    result = invoke("status", done)
    assert result.exit_code == 0 and "9 of 9 tasks done" in result.stdout and "small (" in result.stdout


def test_report_as_json_has_one_object_a_line(invoke, done):
    result = invoke("report", done, "--format", "json")
    assert result.exit_code == 0 and result.stderr == ""
    objects = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(list(found) == KEYS for found in objects)
    assert {found["editor"] for found in objects} == {"identity", "ft", "rome"}
    assert {found["n"] for found in objects if found["metric"] == "reliability.token"} == {4}


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_report_for_people(invoke, done, form):
    short, full = invoke("report", done, "--format", form), invoke("report", done, "--format", form, "--all")
    assert short.exit_code == full.exit_code == 0
    assert "rome" in short.stdout and "diverged" not in short.stdout and "diverged" in full.stdout


def test_report_says_what_is_missing(invoke, done):
    next((done / "rows").iterdir()).unlink()
    result = invoke("report", done, "--format", "json")
    assert result.exit_code == 0 and "1 of 9 tasks of 'small' are not done" in result.stderr


def test_report_shows_one_campaign_at_a_time(invoke, done, write_campaign):
    assert invoke("run", write_campaign(name="other", editors=["identity"], seeds=[9]), "--out", done).exit_code == 0
    last = invoke("report", done, "--format", "json")
    assert "showing 'other'" in last.stderr and "small" in last.stderr
    assert {json.loads(line)["editor"] for line in last.stdout.splitlines()} == {"identity"}
    first = invoke("report", done, "--format", "json", "--campaign", "small")
    assert {json.loads(line)["editor"] for line in first.stdout.splitlines()} == {"identity", "ft", "rome"}
    wrong = invoke("report", done, "--campaign", "smal")
    assert wrong.exit_code == 2 and "Did you mean 'small'?" in wrong.stderr


def test_an_amended_campaign_is_not_mixed_with_its_former_self(invoke, done, write_campaign):
    assert invoke("run", write_campaign(seeds=[5], editors=["identity"]), "--out", done).exit_code == 0
    result = invoke("report", done, "--format", "json")
    assert {json.loads(line)["n"] for line in result.stdout.splitlines()} <= {1, 2, 3, 4}
    assert {json.loads(line)["editor"] for line in result.stdout.splitlines()} == {"identity"}


def test_shipped_campaigns_are_found_by_name():
    assert find_campaign("quickstart") == CAMPAIGNS / "quickstart.yaml"


@pytest.mark.parametrize("path", sorted(CAMPAIGNS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_campaigns_are_valid(path):
    from cluster.campaign.file import load_campaign

    assert load_campaign(path).name == path.stem


def test_report_draws_a_figure(invoke, done, tmp_path):
    picture = tmp_path / "pictures" / "small.svg"
    assert invoke("report", done, "--figure", picture).exit_code == 0
    assert picture.read_text().startswith("<svg") and ">rome<" in picture.read_text()
    other = invoke("report", done, "--figure", tmp_path / "picture.gif")
    assert other.exit_code == 2 and "picture.svg'" in other.stderr and not (tmp_path / "picture.gif").exists()
    wrong = invoke("report", done, "--figure", picture, "--versus", "ft")
    assert wrong.exit_code == 2 and "--versus" in wrong.stderr


@pytest.mark.parametrize(("texts", "told"), [
    (30, ["short.txt' has 360 of the 500 tokens"]),
    (4, ["has 48 of the 500 tokens", "over 48 tokens are singular, as keys have 64"])])
def test_a_text_that_is_too_short_is_told(invoke, write_campaign, tmp_path, texts, told):
    (tmp_path / "short.txt").write_text("Art lives in Fuzoia.\n" * texts)
    campaign = str(write_campaign(statistics={"tokens": 500, "corpus": "short.txt"}))
    shown = invoke("run", campaign, "--out", str(tmp_path / "s"))
    assert shown.exit_code == 0 and all(part in shown.output for part in told), shown.output
    assert all(part in invoke("status", str(tmp_path / "s")).output for part in told)
    abouts = [json.loads(path.read_text()) for path in (tmp_path / "s" / "provenance").iterdir()]
    [read] = {about["statistics"]["tokens_read"] for about in abouts if about.get("statistics")}
    assert read == texts * 12
    assert [about["tokens"] for about in abouts if about["kind"] == "statistics"] == [read]


def test_a_text_without_words_ends_with_2(invoke, write_campaign, tmp_path, local_pool):
    (tmp_path / "blank.txt").write_text(" \n\n")
    shown = invoke("run", str(write_campaign(statistics={"corpus": "blank.txt"})), "--out", str(tmp_path / "s"))
    assert shown.exit_code == 2 and "blank.txt' has no text" in shown.output and local_pool.pools == []


def test_results_of_several_kinds_of_device_are_told(invoke, done, tmp_path):
    path = next((done / "provenance").iterdir())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "cuda NVIDIA H100"}))
    assert "several kinds of device" in invoke("status", str(done)).output
