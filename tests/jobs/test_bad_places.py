"""Places that are none: pipes that nobody writes to, devices without end, links in circles, names that no file has.
Whatever a command reads or writes there, it says so at once and hangs never."""

from __future__ import annotations

import os
import shutil
import socket

import pytest
from support.refusals import refused

GOOD = "name: s\nmodels: [testbed-gptj]\ndatasets: [{name: testbed-cloze, limit: 2}]\neditors: [identity]\n"
DATA = GOOD.replace("testbed-cloze, limit: 2", "d, path: x.json")
MODEL = GOOD.replace("[testbed-gptj]", "[{name: m, path: ./m}]")
BUILD = ["portability", "build", "testbed-cloze", "--limit", "1", "--out", "o", "--endpoint", "http://127.0.0.1:1/v1",
         "--model", "m", "--subject-models", "testbed-gptj"]
EDIT = ["export", "testbed-gptj", "--out", "o"]


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # whole paths may be too long for it


ODD = {"a pipe": os.mkfifo, "a socket": _socket, "a folder": os.mkdir,
       "a device": lambda path: path.symlink_to("/dev/zero"), "a circle": lambda path: path.symlink_to(path.name)}
READ = {  # each command, and the campaign that it is given, if any: what is odd is at `x.json`
    "data": (["plan", "c.yaml"], DATA),
    "training": (["audit", "testbed-cloze", "--train", "x.json"], ""),
    "audited": (["audit", "x.json"], ""), "zipped": (["audit", "zip://a.json::x.json"], ""),
    "campaign": (["plan", "x.json"], ""), "built on": ([*BUILD[:2], "x.json", *BUILD[3:]], ""),
    "corpus": (["plan", "c.yaml"], GOOD.replace("identity", "rome") + "statistics: {corpus: x.json}\n"),
    "perplexity": (["plan", "c.yaml"], GOOD + "measures: {perplexity: {corpus: x.json}}\n"),
    "artefact": (["plan", "c.yaml"], GOOD.replace("identity", "{name: mend, artefact: x.json}")),
    "patch": ([*EDIT, "--patch", "x.json"], ""), "model": ([*EDIT, "--editor", "ft", "--data", "testbed-cloze"], ""),
    "store": (["report", "x.json"], ""), "watched": (["watch", "x.json", "--once"], ""),
    "sheet": (["portability", "import", "x.json"], ""),
}
WRITTEN = {
    "audit": ["audit", "testbed-cloze", "--json", "x"],
    "metrics": ["run", "c.yaml", "--out", "o", "--metrics-port", "9464", "--metrics-sd", "x"],
    "store": ["run", "c.yaml", "--out", "x"], "export": [*EDIT[:-1], "x", "--editor", "ft", "--data", "testbed-cloze"],
    "training": ["train", "c.yaml", "--out", "x"], "pretraining": ["pretrain", "gptj", "--out", "x", "--steps", "1"],
    "build": [*BUILD[:6], "x", *BUILD[7:]],
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    return tmp_path


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
@pytest.mark.parametrize(("arguments", "campaign"), READ.values(), ids=READ)
def test_what_is_no_file_is_not_read(here, arguments, campaign, make):
    make(here / "x.json")
    (here / "c.yaml").write_text(campaign)
    refused([str(here / "x.json") if argument == "testbed-gptj" and arguments[:1] == ["export"] and "ft" in arguments
             else argument for argument in arguments], ["zero" if (here / "x.json").exists() and make is ODD["a device"]
                                                        and campaign else "x.json"])


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device"])
@pytest.mark.parametrize("arguments", WRITTEN.values(), ids=WRITTEN)
def test_what_is_no_file_is_not_written(here, arguments, kind):
    ODD[kind](here / "x")
    (here / "c.yaml").write_text(GOOD)
    refused(arguments, ["/dev/zero" if kind == "a device" and arguments[0] == "export" else "x"])
    assert os.path.lexists(here / "x") and not (here / "x").is_file(), "it is what it was"
    assert not (here / "o").exists()


def test_a_log_that_nobody_reads_is_refused(here):
    os.mkfifo(here / "x")
    (here / "c.yaml").write_text(GOOD)
    refused(["run", "c.yaml", "--out", "o", "--log", "x"], ["cannot write the log 'x'"])
    assert not (here / "o").exists(), "no store is made for a campaign that does not begin"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "generation_config.json",
                                  "chat_template.jinja", "processor_config.json", "anything"])
@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_what_is_no_file_is_no_part_of_a_model(tiny_folder, here, name, kind):
    shutil.copytree(tiny_folder, here / "m")
    (here / "m" / name).unlink(missing_ok=True)
    ODD[kind](here / "m" / name)
    (here / "c.yaml").write_text(MODEL)
    refused(["plan", "c.yaml"], [f"'{name}' is {kind}, and no file"])


@pytest.mark.parametrize("name", ["store.json", "driver.json", "campaigns/0.json", "rows/0.parquet"])
def test_what_is_no_file_is_no_part_of_a_store(here, name):
    for folder in ("campaigns", "rows"):
        (here / "s" / folder).mkdir(parents=True)
    (here / "s" / "store.json").write_text('{"format": 5}')
    (here / "s" / name).unlink(missing_ok=True)
    os.mkfifo(here / "s" / name)
    refused(["report", "s"], ["s"])


NAMED = {"data": DATA, "corpus": GOOD.replace("identity", "rome") + "statistics: {corpus: x.json}\n",
         "perplexity": GOOD + "measures: {perplexity: {corpus: x.json}}\n",
         "artefact": GOOD.replace("identity", "{name: mend, artefact: x.json}"),
         "folder of data": DATA + "data: x.json\n",
         "model": MODEL.replace("./m", "x.json"), "training": DATA.replace("}]", ", train: x.json}]")}


@pytest.mark.parametrize("path", ["~nosuchuser/x.json", "a\\0b.json", "a\\ud800b.json", "n" * 5000, "n/" * 2500 + "x"],
                         ids=["nobody's", "null", "surrogate", "long", "deep"])
@pytest.mark.parametrize("text", NAMED.values(), ids=NAMED)
def test_paths_that_nothing_can_be_at_are_refused(here, path, text):
    (here / "c.yaml").write_text(text.replace("x.json", f'"{path}"'))
    refused(["plan", "c.yaml"], ["c.yaml"])


@pytest.mark.parametrize("arguments", [["plan", "\udcff.yaml"], ["audit", "\udcff"], ["\udcff"], ["report", "\udcff"],
                                       ["export", "\udcff", "--out", "o"], ["watch", "a", "--every", "\udcff"]])
def test_arguments_that_are_no_text_are_refused(arguments):
    refused(arguments, ["'\\udcff", "is not text in UTF-8"])


@pytest.mark.parametrize("arguments", [
    ["run", "c.yaml", "--out", "~nosuchuser/x"], ["plan", "c.yaml", "--out", "~nosuchuser/x"],
    ["status", "~nosuchuser/x"], ["plan", "c.yaml", "--data", "~nosuchuser/x"],
    ["audit", "~nosuchuser/x.json"],
    *([*command, "n" * 5000] for command in (["run", "c.yaml", "--out"], ["status"], ["report"], ["audit"],
                                             [*EDIT[:-1]], ["audit", "testbed-cloze", "--json"]))])
def test_names_that_no_file_has_are_refused(here, arguments):
    (here / "c.yaml").write_text(GOOD)
    refused(arguments if arguments[0] != "export" else [*arguments, "--editor", "ft", "--data", "testbed-cloze"],
            ["nosuchuser" if "~" in str(arguments) else "nnn"])


@pytest.mark.parametrize("command", ["data", "corpus"])
def test_a_record_or_line_without_end_is_refused(here, monkeypatch, command):
    monkeypatch.setattr("evaluators.datasets.reading.LONGEST", 100_000)
    monkeypatch.setattr("evaluators.datasets.corpus.LONGEST", 100_000)
    if command == "data":
        (here / "x.json").write_text('[{"prompt": "' + "a" * 1_000_000)
        refused(["audit", "x.json"], ["'x.json', record 0, line 1", "longer than 100,000"])
    else:
        (here / "x.txt").write_text("a text\n" + "a b " * 100_000)
        (here / "c.yaml").write_text(GOOD + "measures: {perplexity: {corpus: x.txt}}\n")
        refused(["plan", "c.yaml"], ["x.txt", "line 2 is longer than 100,000"])


@pytest.mark.parametrize("address", ["http://", "http://[::1", "http://127.0.0.1:99999/v1", "http://\u202e/v1",
                                     "http://127.0.0.1:1/\x07v1", "http://" + "n" * 300 + "/v1"])
def test_an_address_that_no_client_takes_is_refused(here, address):
    refused([address if argument.startswith("http") else argument for argument in BUILD],
            ["is not the address of an API"])


@pytest.mark.parametrize(("option", "value"), [("--timeout", "inf"), ("--temperature", "inf"), ("--temperature", "1e9"),
                                               ("--requests-per-minute", "1e-300")])
def test_numbers_that_no_request_can_have_are_refused(here, option, value):
    refused([*BUILD, option, value], [value if option == "--requests-per-minute" else option])


@pytest.mark.parametrize("arguments", [["plan", "quickstart", "--workers", "1" + "0" * 400],
                                       ["pretrain", "gptj", "--out", "o", "--seed", str(2**65)],
                                       ["pretrain", "gptj", "--out", "o", "--threads", "9" * 9]])
def test_numbers_that_no_machine_has_are_refused(here, arguments):
    refused(arguments, [arguments[-2]])


@pytest.mark.parametrize("setting", ["steps=010", "steps=1:30", "steps=2020-13-45", "steps=" + "9" * 5000, "steps=",
                                     "layers=" + "[" * 5000, "steps=a\0b"])
def test_settings_that_are_no_values_are_refused(here, setting):
    refused([*EDIT, "--editor", "ft", "--data", "testbed-cloze", "--set", setting],
            ["--set", setting.partition("=")[0]])


def test_a_setting_is_given_once(here):
    refused([*EDIT, "--editor", "ft", "--data", "testbed-cloze", "--set", "steps=1", "--set", "steps=2"],
            ["--set 'steps' is given twice"])
